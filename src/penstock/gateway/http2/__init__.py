"""HTTP/2 as gRPC needs it: no push, no priorities, no dynamic table of ours."""
