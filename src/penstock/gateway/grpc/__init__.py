"""The Open Inference Protocol over gRPC, as callers see it: calls, their messages and their end."""
