//! Compiles the wire contracts below this folder with protox: no protoc is needed.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "cri/runtime/v1/api.proto",
        "containerd/events/events.proto",
        "containerd/leases/leases.proto",
        "grpc_health.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
