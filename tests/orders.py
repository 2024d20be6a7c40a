"""Documents as merchants write them: invented customers, whose numbers have their check digits."""

from typing import Any

BUSINESS: dict[str, Any] = {
    "first_name": "Kari",
    "last_name": "Solberg",
    "business_name": "Fjordbygg AS",
    "organization_number": "923609016",
    "email": "kari@fjordbygg.example",
    "phone_number": "+4740000001",
    "address_line": "Strandgaten 12",
    "postal_code": "5013",
    "postal_place": "Bergen",
    "country": "NO",
}
CONSUMER = {name: value for name, value in BUSINESS.items() if name not in ("business_name", "organization_number")}
ITEM: dict[str, Any] = {"id": "sub-001", "line_id": "1", "description": "Abonnement", "amount": 29900, "vat": 25}
PUBLIC = "https://invoices.example.com"
CALLBACK = f"{PUBLIC}/callback?report_event=VOID&report_event=CAPTURE&report_error=true"


def document(product: str = "invoice_b2b", *, reference: str = "inv-1", amount: int = 29900, **more: Any) -> Any:
    """Return a document in our own form."""
    address = dict(CONSUMER if product == "invoice_b2c" else BUSINESS)
    order = {
        "amount": amount,
        "currency": "NOK",
        "merchant_reference": reference,
        "items": [{**ITEM, "amount": amount}],
        "billing_address": address,
    }
    return {"product": product, "order": order, **more}


HEAD = (
    "merchant_reference,product,amount_minor,currency,description,vat,first_name,last_name,business_name,"
    "organization_number,email,phone_number,address_line,postal_code,postal_place,country"
)


def line(reference: str, amount: str = "29900") -> str:
    """Return a line of a batch for `HEAD`."""
    return (
        f"{reference},invoice_b2b,{amount},NOK,Abonnement,25,Kari,Solberg,Fjordbygg AS,923609016,"
        "kari@fjordbygg.example,+4740000001,Strandgaten 12,5013,Bergen,NO"
    )


def batch(*references: str) -> str:
    return "\n".join((HEAD, *map(line, references))) + "\n"
