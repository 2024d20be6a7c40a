"""Transaction to Message, through `templates/`."""

from service.render.errors import TemplateError
from service.render.pages import TemplatePages, open_pages
from service.render.renderer import TemplateRenderer, open_renderer

__all__ = ["TemplateError", "TemplatePages", "TemplateRenderer", "open_pages", "open_renderer"]
