//! Compiles the `.proto` files with a compiler written in Rust: no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 3] = ["entry", "publisher", "catalogue"];

fn main() -> Result<(), Box<dyn Error>> {
    let files = FILES.map(|file| format!("waymark/registry/v1/{file}.proto"));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
