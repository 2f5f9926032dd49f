"""What tests give the clients that they make again and again, for processes of this machine."""

import ssl
from typing import Final

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""`verify` of a client that speaks plain HTTP only and trusts nobody.

To load the system's certificates takes each client 50 ms of CPU, more than its requests.
"""
