//! What lies on the disk: names, keys, certificates, database, snapshots.

use super::{Found, Subject, good, notice, wrong};
use crate::control_plane;
use crate::install::{certs, init, machine_id, units};
use crate::snapshot::{self, rescue};
use jiff::Timestamp;
use keelson_store::SqliteReader;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

fn words(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// The host name is still the one that the node's identity says.
pub fn host_name(subject: &Subject<'_>) -> Vec<Found> {
    vec![match crate::node_certs::node_of(&subject.files().kubelet) {
        Some(known) if known != subject.node => wrong(
            format!("this machine calls itself {}, its identity is node {known}'s", subject.node),
            format!("`hostnamectl set-hostname {known}`, or set node.name to {known} in the configuration"),
        ),
        _ => good(format!("the node is called {}", subject.node)),
    }]
}

/// The machine has an identity of its own, which the Node object shows.
pub fn machine_id(_: &Subject<'_>) -> Vec<Found> {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    vec![match machine_id::parse(&text) {
        Some(id) => good(id),
        None => wrong("/etc/machine-id holds no identity of this machine", "`systemd-machine-id-setup`"),
    }]
}

/// Nobody but root puts files beside the keys.
pub fn state_folder(subject: &Subject<'_>) -> Vec<Found> {
    let state = &subject.config.paths.state;
    let Ok(meta) = std::fs::metadata(state) else {
        return vec![wrong(format!("{} is not there", state.display()), "Check that its disk is mounted")];
    };
    vec![match meta.permissions().mode() & 0o022 {
        0 => good(state.display().to_string()),
        _ => wrong(
            format!("others may write to {}", state.display()),
            format!("`chmod go-w {}`", state.display()),
        ),
    }]
}

/// Keys, and what holds keys, are read by their owner alone.
pub fn key_files(subject: &Subject<'_>) -> Vec<Found> {
    let (config, node) = (subject.config, subject.files());
    let mut files = vec![
        control_plane::admin_file(config),
        config.paths.database().join(keelson_store::sqlite::DATABASE),
        node.serving_key(),
        node.kubelet,
        node.bootstrap,
        node.proxy,
    ];
    let listed = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.extend(
        listed(&config.paths.pki())
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "key")),
    );
    files.extend(listed(&config.snapshots.folder).map(|entry| entry.path()));
    files.retain(|path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o077 != 0)
    });
    files.sort();
    vec![match files.as_slice() {
        [] => good("only their owners read them"),
        some => wrong(
            format!("others may read {}", words(some)),
            format!("`chmod 600 {}`; who read them meanwhile has them", words(some)),
        ),
    }]
}

/// The control plane's user owns what it writes.
pub fn owners(subject: &Subject<'_>) -> Vec<Found> {
    let config = subject.config;
    if !subject.separate() || !subject.control_plane() {
        return Vec::new();
    }
    let Ok(Some(user)) = nix::unistd::User::from_name(init::USER) else {
        return vec![wrong(format!("there is no user {}", init::USER), "`systemd-sysusers`")];
    };
    let mut others = vec![config.paths.pki(), config.paths.database(), config.snapshots.folder.clone()];
    let is_other =
        |path: &PathBuf| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() != user.uid.as_raw());
    others.retain(|folder| {
        let inside = std::fs::read_dir(folder).into_iter().flatten().flatten();
        is_other(folder) || inside.map(|entry| entry.path()).any(|path| is_other(&path))
    });
    vec![match others.as_slice() {
        [] => good(format!("{} owns what it writes", init::USER)),
        some => wrong(
            format!("not all in {} is {}'s", words(some), init::USER),
            format!("`chown -R {}:{} {}`", init::USER, init::USER, words(some)),
        ),
    }]
}

/// The administrator's kubeconfig is where it is looked for.
pub fn admin_conf(subject: &Subject<'_>) -> Vec<Found> {
    if !subject.control_plane() {
        return Vec::new();
    }
    let (link, file) = (subject.config.paths.kubeconfig("admin"), control_plane::admin_file(subject.config));
    vec![if !file.exists() {
        wrong(format!("{} is missing", file.display()), "`keelson certs renew` writes it")
    } else if std::fs::canonicalize(&link).ok() != std::fs::canonicalize(&file).ok() {
        wrong(
            format!("{} does not lead to {}", link.display(), file.display()),
            format!("`ln -sfn {} {}`", file.display(), link.display()),
        )
    } else {
        good(link.display().to_string())
    }]
}

/// Certificates can be read, hold now, and are renewed in time.
pub fn certificates(subject: &Subject<'_>) -> Vec<Found> {
    let (now, pki) = (Timestamp::now(), subject.config.paths.pki());
    let mend = |path: &Path| match path.starts_with(&pki) {
        true => "`keelson certs renew` makes it anew".to_owned(),
        false => format!("`systemctl restart {}` gets another", subject.unit_of(units::KUBELET)),
    };
    let mut found = Vec::new();
    for (path, listed) in certs::each(subject.config) {
        let mend = mend(&path);
        match listed {
            Err(error) => found.push(wrong(format!("{} is damaged: {error:#}", path.display()), mend)),
            Ok(one) if one.expires <= now => {
                found.push(wrong(format!("{} ended on {}", path.display(), one.expires), mend));
            }
            // Half way between when it should have been and its end.
            Ok(one) => {
                let late = one.renewal.is_some_and(|renewal| {
                    let end = one.expires.as_second();
                    now.as_second() > end - (end - renewal.as_second()) / 2
                });
                if late {
                    found.push(wrong(format!("{} should have been renewed long ago", path.display()), mend));
                }
            }
        }
    }
    if found.is_empty() { vec![good("all hold")] } else { found }
}

/// The database's file is whole.
pub fn database(subject: &Subject<'_>) -> Vec<Found> {
    let folder = subject.config.paths.database();
    if !subject.control_plane() || subject.config.etcd.is_some() {
        return Vec::new();
    }
    let unit = subject.unit_of(units::CONTROL_PLANE);
    let damaged = |what: String| {
        vec![wrong(
            format!("the database in {} is damaged: {what}", folder.display()),
            format!(
                "`systemctl restart {unit}` keeps it aside and restores the newest snapshot (`keelson snapshot list` shows \
                 them); what was written since is lost"
            ),
        )]
    };
    match SqliteReader::open(&folder) {
        Ok(reader) => match reader.damage() {
            Some(what) => damaged(what),
            None => vec![good("whole")],
        },
        Err(error) if error.is_damage() => damaged(error.to_string()),
        Err(error) => {
            vec![wrong(error.to_string(), format!("`journalctl -u {unit} -n 30 --no-pager` says more"))]
        }
    }
}

/// Nothing is left of a database that was damaged once.
pub fn damaged(subject: &Subject<'_>) -> Vec<Found> {
    if !subject.control_plane() {
        return Vec::new();
    }
    let kept = rescue::kept_aside(subject.config);
    if kept.is_empty() {
        return vec![good("none are kept")];
    }
    let one = |(path, note): (PathBuf, String)| {
        let note =
            if note.is_empty() { format!("{} holds a damaged database", path.display()) } else { note };
        wrong(
            note.split(" When nothing").next().unwrap_or_default(),
            format!("When nothing of it is needed: `rm -r {}`", path.display()),
        )
    };
    kept.into_iter().map(one).collect()
}

/// There is a whole one of this cluster that is not old.
pub fn snapshots(subject: &Subject<'_>) -> Vec<Found> {
    let config = subject.config;
    if !subject.control_plane() {
        return Vec::new();
    }
    let listed = match snapshot::list(config) {
        Ok(listed) => listed,
        Err(error) => return vec![wrong(format!("{error:#}"), "Check its folder")],
    };
    let mut found: Vec<Found> = listed
        .iter()
        .filter_map(|one| {
            let wrong_with = one.wrong.as_ref()?;
            Some(wrong(
                format!("{} is {wrong_with}", one.path.display()),
                format!("`rm {}`", one.path.display()),
            ))
        })
        .collect();
    let newest = listed.iter().filter(|one| one.own).filter_map(|one| one.taken).max();
    match (newest, config.snapshots.every) {
        (None, _) => found.push(notice("there is none yet", "`keelson snapshot save` takes one")),
        (Some(taken), Some(every)) => {
            let age = (Timestamp::now().as_second() - taken.as_second()).max(0).unsigned_abs();
            if age > 2 * every.as_secs() {
                found.push(wrong(
                    format!("the newest is of {}", taken.strftime("%Y-%m-%d %H:%M UTC")),
                    "`keelson snapshot save` takes one now; the control plane's log says why none were taken",
                ));
            }
        }
        _ => {}
    }
    if found.is_empty() { vec![good(format!("{} are whole", listed.len()))] } else { found }
}

/// Every file in the folder of static pods is one.
pub fn static_pods(subject: &Subject<'_>) -> Vec<Found> {
    let folder = &subject.config.kubelet.static_pods;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|path| {
        path.is_file() && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
    });
    files.sort();
    let mut found = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let what = match serde_saphyr::from_str::<serde_json::Value>(&text) {
            Ok(pod) if pod["kind"] == "Pod" && pod["metadata"]["name"].is_string() => continue,
            Ok(_) => "is no Pod with a name".to_owned(),
            Err(error) => format!("cannot be read: {}", error.to_string().lines().next().unwrap_or_default()),
        };
        let away = subject.config.paths.state.join("refused-manifests");
        found.push(wrong(
            format!("{} {what}", path.display()),
            format!(
                "Correct it, or take it away: `mkdir -p {} && mv {} {}/`",
                away.display(),
                path.display(),
                away.display()
            ),
        ));
    }
    if found.is_empty() { vec![good(format!("{} in {}", files.len(), folder.display()))] } else { found }
}
