//! Runs tables: each in a namespace of its own and in a folder that holds a copy of the table's files.

use crate::{Tally, expect, table};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One client that is driven by tables.
pub struct Client {
    pub name: &'static str,
    /// What rows and lines for it alone begin with.
    tag: &'static str,
    folder: &'static str,
    /// What `kubectl` is on its PATH.
    kubectl: &'static str,
}

pub const CLIENTS: &[Client] = &[
    Client { name: "kubectl-132", tag: "132", folder: "kubectl", kubectl: "kubectl-132" },
    Client { name: "kubectl-135", tag: "135", folder: "kubectl", kubectl: "kubectl-135" },
    Client { name: "helm", tag: "135", folder: "helm", kubectl: "kubectl-135" },
];

/// A row that repeats is given up after this, and no command takes longer than twice this.
const PATIENCE: Duration = Duration::from_secs(45);

pub struct Tables<'a> {
    pub programs: &'a Path,
    pub kubeconfig: &'a Path,
    pub jobs: usize,
    pub keep: bool,
}

struct Table {
    name: String,
    rows: Vec<table::Row>,
}

impl Tables<'_> {
    /// Runs the client's tables whose names hold `only`, some at once.
    pub fn run(&self, client: &Client, only: &str) -> Result<Tally> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(client.folder);
        let mut tables = read(&folder, client.tag)?;
        tables.retain(|table| format!("{}/{}", client.name, table.name).contains(only));
        // The longest first, so that none is left to run alone at the end.
        tables.sort_by_key(|table| table.rows.len());
        let queue = Mutex::new(tables);
        let tally = Mutex::new(Tally { name: client.name.to_owned(), ..Tally::default() });
        let next = || queue.lock().ok().and_then(|mut tables| tables.pop());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while let Some(table) = next() {
                        let begun = Instant::now();
                        let own = self.table(client, &folder, &table);
                        println!(
                            "{}/{}: {} passed, {} failed ({:.1} s)",
                            client.name,
                            table.name,
                            own.passed,
                            own.failures.len(),
                            begun.elapsed().as_secs_f64()
                        );
                        if let Ok(mut tally) = tally.lock() {
                            tally.passed += own.passed;
                            tally.failures.extend(own.failures);
                            tally.known.extend(own.known);
                        }
                    }
                });
            }
        });
        Ok(tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn table(&self, client: &Client, folder: &Path, table: &Table) -> Tally {
        let mut tally = Tally::default();
        let place = match Place::new(self, client, folder, &table.name) {
            Ok(place) => place,
            Err(error) => {
                tally.failures.push(format!("{}: {error:#}", table.name));
                return tally;
            }
        };
        let mut values = place.values.clone();
        for row in &table.rows {
            let what = format!("{}:{}: {}", table.name, row.line, table::fill(&row.command, &values));
            match (place.row(row, &mut values), &row.known) {
                (Ok(()), None) => tally.passed += 1,
                (Ok(()), Some(why)) => tally.failures.push(format!("{what}\n    no longer true: {why}")),
                (Err(_), Some(why)) => tally.known.push(format!("{what}\n    {why}")),
                (Err(error), None) => {
                    let error = format!("{error:#}").replace('\n', "\n    ");
                    tally.failures.push(format!("{what}\n    {error}"));
                }
            }
        }
        if !self.keep
            && let Err(error) = place.end()
        {
            tally.failures.push(format!("{}: its namespace stays: {error:#}", table.name));
        }
        tally
    }
}

/// The tables of a folder, and one per kind out of `matrix.txt` and `kinds/`.
fn read(folder: &Path, tag: &str) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for path in files(folder)? {
        let name = stem(&path);
        if name == "matrix" {
            continue;
        }
        let rows = table::parse(&std::fs::read_to_string(&path)?, tag).context(name.clone())?;
        tables.push(Table { name, rows });
    }
    let matrix = folder.join("matrix.txt");
    if !matrix.exists() {
        return Ok(tables);
    }
    let matrix = std::fs::read_to_string(matrix)?;
    for path in files(&folder.join("kinds"))? {
        let name = stem(&path);
        let values = table::kind(&std::fs::read_to_string(&path)?);
        // Twice: a block may use another.
        let text = table::fill(&table::fill(&matrix, &values), &values);
        let rows = table::parse(&text, tag).with_context(|| format!("kind {name}"))?;
        tables.push(Table { name: format!("kind-{name}"), rows });
    }
    Ok(tables)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    Ok(files)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where one table runs.
struct Place {
    folder: tempfile::TempDir,
    values: BTreeMap<String, String>,
    namespace: String,
}

struct Said {
    out: String,
    err: String,
    code: i32,
}

impl Place {
    fn new(tables: &Tables<'_>, client: &Client, files: &Path, table: &str) -> Result<Place> {
        let folder = tempfile::tempdir()?;
        let namespace = format!("{}{}-{table}", if client.folder == "helm" { "h" } else { "k" }, client.tag);
        let from = if client.tag >= "134" { format!(" from {namespace} namespace") } else { String::new() };
        let values = BTreeMap::from([
            ("ns".to_owned(), namespace.clone()),
            ("v".to_owned(), client.tag.to_owned()),
            ("from".to_owned(), from),
            ("tests".to_owned(), env!("CARGO_MANIFEST_DIR").to_owned()),
        ]);
        let bin = folder.path().join("bin");
        std::fs::create_dir_all(&bin)?;
        for (name, program) in [("kubectl", client.kubectl), ("helm", "helm")] {
            let program = tables.programs.join(program);
            ensure!(program.exists(), "{} is missing", program.display());
            std::os::unix::fs::symlink(program, bin.join(name))?;
        }
        std::fs::copy(tables.kubeconfig, folder.path().join("kubeconfig"))?;
        let work = folder.path().join("work");
        std::fs::create_dir_all(&work)?;
        let files = files.join("files");
        let entries = files.is_dir().then(|| std::fs::read_dir(files)).transpose()?;
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let text = std::fs::read_to_string(entry.path())?;
            std::fs::write(work.join(entry.file_name()), table::fill(&text, &values))?;
        }
        let place = Place { folder, values, namespace };
        place.must("kubectl delete namespace {ns} --ignore-not-found && kubectl create namespace {ns}")?;
        place.must("kubectl config set-context --current --namespace={ns}")?;
        place.must("kubectl wait --for=create serviceaccount/default --timeout=30s")?;
        place.must("kubectl wait --for=create configmap/kube-root-ca.crt --timeout=30s")?;
        Ok(place)
    }

    fn must(&self, script: &str) -> Result<()> {
        let said = self.bash(&table::fill(script, &self.values))?;
        if said.code != 0 {
            bail!("{script}: {}{}", said.out, said.err);
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        self.must("kubectl delete namespace {ns} --wait=false")
    }

    fn bash(&self, script: &str) -> Result<Said> {
        let home = self.folder.path();
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("timeout")
            .args(["--kill-after=5", &(PATIENCE * 2).as_secs().to_string(), "bash", "-c"])
            .arg(format!("set -o pipefail\n{script}"))
            .env("PATH", format!("{}:{path}", home.join("bin").display()))
            .env("HOME", home)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("NS", &self.namespace)
            .current_dir(home.join("work"))
            .stdin(Stdio::null())
            .output()
            .context("cannot run bash")?;
        Ok(Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        })
    }

    fn row(&self, row: &table::Row, values: &mut BTreeMap<String, String>) -> Result<()> {
        let command = table::fill(&row.command, values);
        let filled = |lines: &[String]| -> Vec<String> {
            lines.iter().flat_map(|line| lines_of(&table::fill(line, values))).collect()
        };
        let (out, err) = (filled(&row.out), filled(&row.err));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.bash(&command)?;
            if let Some(name) = &row.capture {
                ensure!(said.code == 0, "exit code {}: {}", said.code, said.err);
                values.insert(name.clone(), said.out.trim_end().to_owned());
                return Ok(());
            }
            let wrong = expect::differs(&out, &said.out)
                .map(|text| format!("standard output, {text}"))
                .or_else(|| expect::differs(&err, &said.err).map(|text| format!("standard error, {text}")))
                .or_else(|| {
                    (said.code != row.code)
                        .then(|| format!("exit code {} instead of {}", said.code, row.code))
                });
            match wrong {
                None => return Ok(()),
                Some(_) if row.eventually && row.known.is_none() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(300));
                }
                Some(wrong) => bail!("{wrong}\nit said:\n{}{}? {}", said.out, said.err, said.code),
            }
        }
    }
}

fn lines_of(text: &str) -> Vec<String> {
    if text.is_empty() { vec![String::new()] } else { text.lines().map(str::to_owned).collect() }
}
