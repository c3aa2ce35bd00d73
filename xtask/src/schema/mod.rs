//! `cargo xtask schema`: the generated table of lib/api.
//!
//! Sources: the v1.35 .proto files inside crate k8s-rs-pb (names, numbers, order), the JSON definitions inside PyPI's
//! kubernetes-validate (required fields, list types, merge keys), and the reviewed facts files beside the table for what neither
//! says. Any difference between the sources that no fact explains fails the run, as does a fact that nothing uses.

mod emit;
mod facts;
mod model;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

#[derive(clap::Args)]
pub struct Options {
    /// Only verify that the committed table is what the sources make
    #[arg(long)]
    check: bool,
    /// `_definitions.json` of kubernetes-validate 1.35.0 (default: fetched with `pip download` into target/)
    #[arg(long)]
    definitions: Option<PathBuf>,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's root")?.to_owned();
    let facts_dir = root.join("lib/api/schema");
    let out_dir = root.join("lib/api/src/schema/generated");
    let sources = sources::load(&root, options.definitions.as_deref())?;
    let facts = facts::load(&facts_dir)?;
    let model = model::build(&sources, &facts)?;
    let files = emit::emit(&model, &sources)?;
    if options.check {
        return check(&out_dir, &files);
    }
    write(&out_dir, &files)?;
    println!(
        "{} structs, {} fields, {} resources in {} files",
        model.packages.iter().map(|p| p.structs.len()).sum::<usize>(),
        model.packages.iter().flat_map(|p| &p.structs).map(|s| s.fields.len()).sum::<usize>(),
        model.groups.iter().flat_map(|g| &g.versions).map(|v| v.rows.len()).sum::<usize>(),
        files.len(),
    );
    Ok(())
}

fn check(dir: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    for (name, text) in files {
        let path = dir.join(name);
        let committed =
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        if committed != *text {
            bail!("{} is not what the sources make; run `cargo xtask schema`", path.display());
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !files.iter().any(|(known, _)| *known == name) {
            bail!("{name} in {} is not made by the sources; run `cargo xtask schema`", dir.display());
        }
    }
    println!("the committed table is what the sources make");
    Ok(())
}

fn write(dir: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|e| e == "rs") && !files.iter().any(|(known, _)| *known == name) {
            std::fs::remove_file(&path)?;
        }
    }
    for (name, text) in files {
        std::fs::write(dir.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}
