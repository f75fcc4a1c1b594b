"""C++ classes and gRPC stubs from .proto files, by the system's protoc and grpc_cpp_plugin."""

def grpc_cc_library(name, srcs, deps = [], visibility = None):
    """One cc_library with the messages and the service stubs of `srcs`.

    Args:
      name: the library.
      srcs: .proto files of this package; they import each other by their path from the workspace's root.
      deps: other libraries of this kind.
      visibility: who may use it.
    """
    outs = []
    for src in srcs:
        base = src[:-len(".proto")]
        outs += [base + suffix for suffix in [".pb.h", ".pb.cc", ".grpc.pb.h", ".grpc.pb.cc"]]
    native.genrule(
        name = name + "_generate",
        srcs = srcs,
        outs = outs,
        cmd = " ".join([
            "protoc -I . -I /usr/include",
            "--cpp_out=$(BINDIR) --grpc_out=$(BINDIR)",
            "--plugin=protoc-gen-grpc=$$(command -v grpc_cpp_plugin)",
            "$(SRCS)",
        ]),
        message = "Generating C++ from protos",
    )
    native.cc_library(
        name = name,
        srcs = [out for out in outs if out.endswith(".cc")],
        hdrs = [out for out in outs if out.endswith(".h")],
        copts = ["-Wno-all", "-Wno-extra"],
        visibility = visibility,
        deps = deps + [
            "//third_party/grpc:grpc++",
            "//third_party/protobuf",
        ],
    )
