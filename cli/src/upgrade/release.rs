//! What a version of keelson is: this program's, and that of a package file, which says so in what it provides.

use super::skew::Minor;
use crate::install::run;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// A version and what must be known of it before it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub version: String,
    pub kubernetes: Minor,
    /// The format of its SQLite database.
    pub format: i32,
}

/// The package that holds the program.
const PACKAGE: &str = "keelson";

impl Release {
    /// This program.
    pub fn own() -> Release {
        Release {
            version: crate::version::OWN.to_owned(),
            kubernetes: Minor::parse(keelson_base::consts::KUBERNETES_VERSION).unwrap_or(Minor(1, 0)),
            format: keelson_store::sqlite::FORMAT,
        }
    }

    /// From the fields of a Debian package: its version and what it provides.
    fn of_fields(version: &str, provides: &str) -> Option<Release> {
        let provided = |name: &str| {
            provides.split(',').find_map(|one| {
                let (found, version) = one.trim().split_once(' ')?;
                (found == name).then(|| version.trim_matches(['(', ')', '=', ' ']).to_owned())
            })
        };
        Some(Release {
            version: version.trim().to_owned(),
            kubernetes: Minor::parse(&provided("keelson-kubernetes")?)?,
            format: provided("keelson-database-format")?.parse().ok()?,
        })
    }

    /// Whether this one is newer; versions are numbers with points between them.
    pub fn newer_than(&self, other: &str) -> bool {
        numbers(&self.version) > numbers(other)
    }
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Package files that are to be installed together, and the release that they are of.
pub struct Packages {
    pub files: Vec<PathBuf>,
    pub release: Release,
}

impl Packages {
    /// Reads .deb files, one of which is the package `keelson`.
    pub fn read(files: &[PathBuf]) -> Result<Packages> {
        let mut release = None;
        for file in files {
            let (name, version, provides) = fields(file)?;
            if name == PACKAGE {
                release = Some(Release::of_fields(&version, &provides).with_context(|| {
                    format!("{} does not say which database format it has", file.display())
                })?);
            }
        }
        let Some(release) = release else {
            bail!("none of these files is the package {PACKAGE}; give keelson_VERSION_amd64.deb");
        };
        Ok(Packages { files: files.to_vec(), release })
    }

    /// Puts the files of the packages in place; restarts nothing.
    pub fn install(&self) -> Result<()> {
        let mut arguments = vec!["--force-confold", "--install"];
        let names: Vec<String> = self.files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        arguments.extend(names.iter().map(String::as_str));
        run("dpkg", &arguments).map(drop).context(
            "the packages cannot be installed; `dpkg --configure -a` and the same command again go on from here",
        )
    }
}

fn fields(file: &Path) -> Result<(String, String, String)> {
    if file.extension().is_none_or(|extension| extension != "deb") {
        bail!(
            "{} is no .deb; install it with your package manager, then run this without a file",
            file.display()
        );
    }
    let path = file.to_string_lossy().into_owned();
    let field = |name: &str| run("dpkg-deb", &["--field", &path, name]).map(|text| text.trim().to_owned());
    Ok((field("Package")?, field("Version")?, field("Provides")?))
}

/// The version of the installed package; `None` where the program is not from one.
pub fn installed() -> Option<String> {
    let shown =
        run("dpkg-query", &["--show", "--showformat", "${db:Status-Status} ${Version}", PACKAGE]).ok()?;
    shown.strip_prefix("installed ").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_says_what_it_provides() {
        let provides = "keelson-database-format (= 3), keelson-kubernetes (= 1.36.0)";
        let release = Release::of_fields("0.2.0\n", provides).unwrap();
        assert_eq!(release, Release { version: "0.2.0".into(), kubernetes: Minor(1, 36), format: 3 });
        assert!(release.newer_than("0.1.0") && release.newer_than("0.1.12"));
        assert!(!release.newer_than("0.2.0") && !release.newer_than("0.10.0"));
        for bad in [
            "",
            "keelson-kubernetes (= 1.36.0)",
            "keelson-database-format (= x), keelson-kubernetes (= 1.36)",
        ] {
            assert_eq!(Release::of_fields("0.2.0", bad), None, "{bad}");
        }
    }
}
