//! Repeats for our own binaries what tch's build script says for its own: link libtorch even though nothing calls it by name
//! (on a GPU host it is the library that brings CUDA in), and find it at run time: beside the installed program (`make install`), else where it was
//! found at build time.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath=$ORIGIN/../lib/delta-guard");
        println!("cargo:rustc-link-arg=-Wl,-rpath={lib}");
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch");
        // Headers and flags as torch-sys has them for its own shim.
        let include = std::path::Path::new(&lib).with_file_name("include");
        println!("cargo:rerun-if-changed=src/context.cpp");
        cc::Build::new()
            .cpp(true)
            .pic(true)
            .warnings(false)
            .std("c++17")
            .include(include)
            .file("src/context.cpp")
            .compile("delta_guard_context");
    }
}
