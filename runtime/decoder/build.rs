//! Finds the libavcodec that `build-libavcodec` made for the target, and links it dynamically.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the image puts the libraries.
const ON_APPLIANCE: &str = "/usr/lib/belvedere/lib";

fn main() {
    println!("cargo:rerun-if-changed=build-libavcodec");
    println!("cargo:rerun-if-env-changed=BELVEDERE_LIBAVCODEC");
    println!("cargo:rerun-if-env-changed=BELVEDERE_FFMPEG_VERSION");
    println!("cargo:rerun-if-env-changed=XDG_CACHE_HOME");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let cross = variable("TARGET") != variable("HOST");
    let target = if cross { "board" } else { "host" };

    let directory = std::env::var_os("BELVEDERE_LIBAVCODEC").map(PathBuf::from).unwrap_or_else(|| {
        let here = Path::new(&variable("CARGO_MANIFEST_DIR")).join("build-libavcodec");
        let output = Command::new(&here).args(["--where", "--target", target]).output();
        match output {
            Ok(output) if output.status.success() => PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()),
            other => panic!("cannot run {}: {other:?}", here.display()),
        }
    });
    let layout = directory.join("layout.rs");
    if !layout.exists() {
        println!(
            "cargo:warning=belvedere-decoder needs libavcodec for the {target}, and it is not at {}. \
             Run: runtime/decoder/build-libavcodec --target {target}",
            directory.display()
        );
        std::process::exit(1);
    }
    println!("cargo:rerun-if-changed={}", layout.display());
    println!("cargo:rustc-env=BELVEDERE_LIBAVCODEC_LAYOUT={}", layout.display());
    let library = directory.join("lib");
    println!("cargo:rustc-link-search=native={}", library.display());
    println!("cargo:rustc-link-lib=dylib=avcodec");
    println!("cargo:rustc-link-lib=dylib=avutil");
    let run_path = if cross { ON_APPLIANCE.into() } else { library.display().to_string() };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{run_path}");
}
