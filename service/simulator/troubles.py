"""What can go wrong when a text or an invoice is handed to an SMS provider or an ERP, by name."""

from service.simulator.deeds import Told, Trouble

TEXTS: dict[str, Trouble] = {
    "sms-throttled": Trouble(about="too many texts; come again in two minutes", status=429, retry_after=120),
    "sms-503": Trouble(about="the provider has no time", status=503),
    "sms-500": Trouble(about="an error inside, and nothing was taken", status=500),
    "sms-500-taken": Trouble(about="an error inside, and the text was taken", status=500, keep=True),
    "sms-502": Trouble(about="a gateway's error", status=502),
    "sms-504": Trouble(about="a gateway got no answer", status=504),
    "sms-silent": Trouble(about="the text is taken, and the answer never comes", lost="silence", keep=True),
    "sms-lost": Trouble(about="the text is taken, and the connection ends", lost="break", keep=True),
    "sms-lost-before": Trouble(about="the connection ends, and nothing was taken", lost="break"),
    "sms-401": Trouble(about="the password is not good", status=401, wrong="account"),
    "sms-402": Trouble(about="the account has no credit", status=402, wrong="account"),
    "sms-403": Trouble(about="the account may not do that", status=403, wrong="account"),
    "sms-bad-number": Trouble(about="there is no such number", status=400, wrong="number"),
    "sms-400": Trouble(about="the request will not do", status=400),
    "sms-404": Trouble(about="there is no such thing", status=404),
    "sms-422": Trouble(about="the text will not do", status=422),
    "sms-redirect": Trouble(about="it has moved", status=307),
}
"""What can go wrong when a text is handed over, by name."""

REPORTS: dict[str, tuple[str, Told]] = {
    "sms-report-failed": ("the text is taken, and reported as not delivered", Told(fate="failed")),
    "sms-report-unknown": ("the text is taken, and what became of it is reported as unknown", Told(fate="unknown")),
    "sms-report-lost": ("the text is taken, and no report comes by itself", Told(fate=None)),
}
"""What can become of a text's report, by name, each with its words."""

INVOICES: dict[str, Trouble] = {
    "erp-throttled": Trouble(about="too many invoices; come again in ten seconds", status=429, retry_after=10),
    "erp-503": Trouble(about="it has no time now", status=503),
    "erp-422": Trouble(about="it does not take this invoice", status=422),
    "erp-413": Trouble(about="the invoice is too large", status=413),
    "erp-401": Trouble(about="it does not know the sender", status=401),
    "erp-409": Trouble(about="the invoice is taken, and it says that it had it before", status=409, keep=True),
    "erp-410": Trouble(about="it is gone for good; nothing is posted until a person resumes it", status=410),
    "erp-500": Trouble(about="an error inside, and nothing was taken", status=500),
    "erp-500-taken": Trouble(about="an error inside, and the invoice was taken", status=500, keep=True),
    "erp-slow": Trouble(about="the invoice is taken, and the answer comes after ten seconds", keep=True, delay=10),
    "erp-silent": Trouble(about="the invoice is taken, and the answer never comes", keep=True, lost="silence"),
    "erp-silent-before": Trouble(about="the answer never comes, and nothing was taken", lost="silence"),
    "erp-redirect": Trouble(about="it has moved", status=307),
}
"""What can go wrong when an invoice is posted to the ERP, by name."""
