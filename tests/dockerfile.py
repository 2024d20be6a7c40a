"""Carries out a Dockerfile in a scratch folder, for there may be no engine to do it.

The folder stands for the container's `/`; absolute paths under OURS are rewritten to lie in it, and everything else
(the shell, sed, Python) is this machine's. Every stage is built in the same place, one after the other, and only what
`COPY --from` names is left of an earlier one. What this cannot show: that the base image has what the steps use, that
layers are cached well, and what an engine itself does with USER, VOLUME and HEALTHCHECK.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OURS = ("opt", "src", "data", "etc", "tmp")
_PATH = re.compile(rf"(?<![\w.:/-])/(?=({'|'.join(OURS)})\b)")


@dataclass(kw_only=True)
class Image:
    """What a stage leaves: `config` holds USER, VOLUME and the like by name, as written; `env` is rewritten."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"

    def here(self, text: str) -> str:
        """Return `text` with the container's absolute paths as they are on this machine."""
        return _PATH.sub(f"{self.root}/", text)

    def place(self, path: str) -> Path:
        """Return where a path of the container lies."""
        return self.root / os.path.normpath(os.path.join("/", self.workdir, path)).lstrip("/")  # noqa: PTH118

    def command(self, name: str) -> list[str]:
        """Return ENTRYPOINT or CMD; both must be in the form that needs no shell."""
        words = json.loads(self.config[name])
        assert isinstance(words, list)
        return words


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield (NAME, rest) of each instruction, continuation lines joined, comments dropped."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def build(dockerfile: Path, context: Path, scratch: Path, *, python: str, env: Mapping[str, str]) -> Image:
    """Carry out `dockerfile` and return its last stage, whose folder is `scratch/root`.

    `python` stands for the base image's; `env` is what this machine's tools need to reach the package index.
    """
    (scratch / "bin").mkdir()
    shim = scratch / "bin" / "python"
    shim.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    shim.chmod(0o755)
    stages: dict[str, Path] = {}
    image, name = Image(root=scratch / "root"), ""
    for instruction, rest in instructions(dockerfile.read_text()):
        if instruction == "FROM":
            if name:
                stages[name] = image.root.rename(scratch / f"stage-{name}")
            words = rest.split()
            name = words[2] if len(words) > 2 else "last"
            image = _base(scratch)
        else:
            _carry_out(image, instruction, rest, context=context, stages=stages, env=env)
    return image


def _base(scratch: Path) -> Image:
    root = scratch / "root"
    for folder in ("etc", "opt", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    return Image(root=root, env={"PATH": f"{scratch}/bin:/usr/bin:/bin"})


def _carry_out(
    image: Image, instruction: str, rest: str, *, context: Path, stages: Mapping[str, Path], env: Mapping[str, str]
) -> None:
    match instruction:
        case "RUN":
            _run(image, rest, env)
        case "COPY":
            _copy(image, rest, context, stages)
        case "WORKDIR":
            image.workdir = rest
            image.place(".").mkdir(parents=True, exist_ok=True)
        case "ENV":
            for word in shlex.split(rest):
                name, _, value = word.partition("=")
                image.env[name] = ":".join(map(image.here, value.split(":")))
        case "ARG" | "LABEL" | "VOLUME" | "EXPOSE" | "USER" | "STOPSIGNAL" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
            image.config[instruction] = rest
        case _:
            raise AssertionError(f"{instruction} is not known here: say what it means before it is used")


def _run(image: Image, script: str, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-euc", image.here(script)],
        cwd=image.place("."),
        env={**env, **image.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"RUN {script}\n{done.stdout}"


def _copy(image: Image, rest: str, context: Path, stages: Mapping[str, Path]) -> None:
    words = rest.split()
    options = dict(word.removeprefix("--").split("=") for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    origin = stages[options["from"]] if "from" in options else context
    if "from" not in options:
        for source in sources:
            assert _admitted(source, context), f"{source} is copied but .dockerignore leaves it out"
    ignore = None if "from" in options else shutil.ignore_patterns("__pycache__", "*.pyc")  # as .dockerignore does
    for source in sources:
        found, into = origin / source.lstrip("/"), image.place(target)
        if found.is_dir():
            shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, ignore=ignore)
        else:
            shutil.copy2(found, into / found.name if target.endswith("/") else into)
        if "chown" in options and os.geteuid() == 0:
            user, group = map(int, options["chown"].split(":"))
            os.chown(into, user, group)


def _admitted(source: str, context: Path) -> bool:
    lines = (context / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    return rules[0] == "*" and f"!{source.rstrip('/')}" in rules
