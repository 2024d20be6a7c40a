// Keeps lists fresh, lets a mail be as tall as it is, and opens a text's link as on a phone. Every page works without it.
"use strict";

for (const list of document.querySelectorAll("[data-refresh]")) {
  setInterval(async () => {
    if (document.hidden || (list.contains(document.activeElement) && document.activeElement !== list)) return;
    try {
      const answer = await fetch(list.dataset.refresh);
      if (!answer.ok) return;
      const html = await answer.text();
      if (html !== list.dataset.last) list.innerHTML = list.dataset.last = html;
    } catch {
      // The demo has ended; the page stays as it was.
    }
  }, 1000);
}

for (const frame of document.querySelectorAll("iframe")) {
  const fit = () => {
    const page = frame.contentDocument?.documentElement;
    if (page) frame.style.height = `${page.scrollHeight}px`;
  };
  frame.addEventListener("load", fit);
  addEventListener("resize", fit);
  if (frame.contentDocument?.readyState === "complete") fit();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-phone]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  open(link.href, "_blank", "popup,noreferrer,width=390,height=844");
});
