"""A C++ library from CUDA sources: nvcc compiles each file, ar puts them together, CcInfo hands it to cc rules."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

_NVCC_FLAGS = [
    "-std=c++17",
    "-O3",
    "-Werror",
    "all-warnings",
    "-Xcompiler",
    "-fPIC,-Wall",
]

def _cuda_library_impl(ctx):
    compilation = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps]).compilation_context
    objects = []
    for src in ctx.files.srcs:
        object = ctx.actions.declare_file(ctx.label.name + "_objects/" + src.basename + ".o")
        objects.append(object)
        ctx.actions.run_shell(
            inputs = depset([src] + ctx.files.hdrs, transitive = [compilation.headers]),
            outputs = [object],
            command = "exec nvcc \"$@\"",
            arguments = _NVCC_FLAGS + ctx.attr.architectures +
                        ["-I.", "-I" + ctx.bin_dir.path, "-c", src.path, "-o", object.path],
            mnemonic = "CudaCompile",
            progress_message = "Compiling " + src.short_path,
            use_default_shell_env = True,
        )
    archive = ctx.actions.declare_file("lib" + ctx.label.name + ".a")
    ctx.actions.run_shell(
        inputs = objects,
        outputs = [archive],
        command = "exec ar rcsD \"$@\"",
        arguments = [archive.path] + [object.path for object in objects],
        mnemonic = "CudaArchive",
        use_default_shell_env = True,
    )
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(ctx = ctx, cc_toolchain = toolchain)
    library = cc_common.create_library_to_link(
        actions = ctx.actions,
        feature_configuration = features,
        cc_toolchain = toolchain,
        static_library = archive,
    )
    own = CcInfo(
        compilation_context = cc_common.create_compilation_context(headers = depset(ctx.files.hdrs)),
        linking_context = cc_common.create_linking_context(
            linker_inputs = depset([cc_common.create_linker_input(
                owner = ctx.label,
                libraries = depset([library]),
                user_link_flags = depset(ctx.attr.linkopts),
            )]),
        ),
    )
    return [
        DefaultInfo(files = depset([archive])),
        cc_common.merge_cc_infos(cc_infos = [own] + [dep[CcInfo] for dep in ctx.attr.deps]),
    ]

_cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"], mandatory = True),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "linkopts": attr.string_list(),
        "architectures": attr.string_list(mandatory = True),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

# What a target that needs CUDA says of itself: without --config=cuda it is skipped, so that no one needs nvcc.
CUDA_ONLY = select({
    "//tools/bazel:cuda": [],
    "//conditions:default": ["//tools/bazel:never"],
})

def cuda_library(name, srcs, hdrs = [], deps = [], testonly = False, visibility = None):
    """A library of CUDA kernels with plain C++ headers.

    Args:
      name: the library.
      srcs: .cu files.
      hdrs: headers that cc rules may include; they name no CUDA keyword.
      deps: cc or cuda libraries.
      testonly: for tests alone.
      visibility: who may use it.
    """
    _cuda_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        deps = deps + ["//third_party/cuda:cudart"],
        architectures = select({
            "//tools/bazel:cuda_portable": [
                "-gencode=arch=compute_80,code=sm_80",
                "-gencode=arch=compute_89,code=sm_89",
                "-gencode=arch=compute_90a,code=sm_90a",
                "-gencode=arch=compute_90,code=compute_90",
            ],
            "//conditions:default": ["-gencode=arch=compute_90a,code=sm_90a"],
        }),
        target_compatible_with = CUDA_ONLY,
        testonly = testonly,
        visibility = visibility,
    )
