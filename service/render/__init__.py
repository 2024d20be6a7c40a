"""Transaction to Message, through `templates/`."""

from service.render.errors import TemplateError
from service.render.renderer import TemplateRenderer, open_renderer

__all__ = ["TemplateError", "TemplateRenderer", "open_renderer"]
