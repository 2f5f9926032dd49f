"""Which form a request has, by protocol and operation."""

from penstock.gateway.admit import Admission
from penstock.gateway.form import Form, OipForm, TranslatedForm
from penstock.gateway.form_grpc import GrpcForm
from penstock.gateway.form_media import MediaForm, UploadForm
from penstock.gateway.form_native import NativeForm

_OPENAI = Form()
_OIP = OipForm()
_GRPC = GrpcForm()
_TRANSLATED = TranslatedForm()
_MEDIA = MediaForm()
_UPLOAD = UploadForm()
_NATIVE = NativeForm()


def form_of(admission: Admission) -> Form:
    """Return the form of a request."""
    if admission.call is not None:
        return _GRPC if admission.target.upstream.is_by_grpc else _OIP
    if admission.operation.is_media:
        return _MEDIA if admission.upload is None else _UPLOAD
    if admission.operation.is_native:
        return _NATIVE
    return _OPENAI if admission.target.upstream.engine.speaks_openai else _TRANSLATED
