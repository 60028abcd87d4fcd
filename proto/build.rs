//! Makes Rust of the protocol definitions in `proto/`: in Rust, without `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const DEFINITIONS: [&str; 2] = ["envoy/service/ratelimit/v3/rls.proto", "gubernator/gubernator.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let definitions = protox::compile(DEFINITIONS, ["proto"])?;
    let described = PathBuf::from(env::var("OUT_DIR")?).join("definitions.bin");
    fs::write(described, definitions.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".pb.gubernator.GetRateLimitsReq", "crate::batch::Batch")
        .compile_fds(definitions)?;
    Ok(())
}
