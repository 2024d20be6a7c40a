"""What can be wrong with a template."""


class TemplateError(ValueError):
    """A template, catalogue or logo cannot be used. The text names the file, the line if known, and what is wrong."""
