//! What the API server says of this machine and, on a control plane, of the others.

use super::{Found, Role, Subject, good, notice, wrong};
use crate::install::{self, etcd, token, units};
use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use std::time::Duration;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(3);
/// How long all members of etcd are waited for, one after the other.
const ETCD_ANSWER: Duration = Duration::from_secs(20);

/// As the administrator on a control plane, as the kubelet elsewhere.
async fn client(subject: &Subject<'_>) -> Result<kube::Client> {
    match subject.role {
        Role::ControlPlane => install::admin(subject.config, None).await,
        Role::Worker => Ok(keelson_client::from_kubeconfig(&subject.files().kubelet).await?),
    }
}

/// Asks something; `None` when there is no answer, which the check of the API server tells of.
async fn asked<T>(subject: &Subject<'_>, ask: impl AsyncFnOnce(kube::Client) -> Result<T>) -> Option<T> {
    let answer = async { ask(client(subject).await?).await };
    tokio::time::timeout(ANSWER, answer).await.ok()?.ok()
}

/// The API server answers, and believes this machine.
pub async fn serving(subject: &Subject<'_>) -> Vec<Found> {
    let answer = async { anyhow::Ok(client(subject).await?.apiserver_version().await?) };
    let what = match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(version)) => return vec![good(version.git_version)],
        Ok(Err(error)) => format!("it does not answer: {error:#}"),
        Err(_) => "it does not answer".to_owned(),
    };
    let mend = match subject.role {
        Role::ControlPlane => format!("`systemctl restart {}`", subject.unit_of(units::CONTROL_PLANE)),
        Role::Worker => {
            "Look at the control plane with `keelson status` there, and at firewalls in between".to_owned()
        }
    };
    vec![wrong(what, mend)]
}

/// The node is known, Ready, and takes pods.
pub async fn node(subject: &Subject<'_>) -> Vec<Found> {
    let name = subject.node.to_owned();
    let asked = asked(subject, async |client| Ok(Api::<Node>::all(client).get_opt(&name).await?)).await;
    let Some(node) = asked else { return Vec::new() };
    let unit = subject.unit_of(units::KUBELET);
    let Some(node) = node else {
        return vec![wrong(
            format!("the cluster knows no node {}", subject.node),
            format!("`systemctl restart {unit}` registers it"),
        )];
    };
    let mut found = Vec::new();
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.into_iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => {}
        ready => found.push(wrong(
            format!("it is not Ready: {}", ready.and_then(|one| one.message).unwrap_or_default()),
            format!("`journalctl -u {unit} -n 30 --no-pager` says why"),
        )),
    }
    if node.spec.and_then(|spec| spec.unschedulable) == Some(true) {
        found.push(notice(
            "it takes no new pods",
            format!(
                "`kubectl --kubeconfig {} uncordon {}` lets it",
                subject.config.paths.kubeconfig("admin").display(),
                subject.node
            ),
        ));
    }
    if found.is_empty() { vec![good("Ready")] } else { found }
}

/// The members of etcd, where this control plane has one of them beside it.
pub async fn etcd(subject: &Subject<'_>) -> Vec<Found> {
    if !subject.config.etcd.as_ref().is_some_and(etcd::is_own) {
        return Vec::new();
    }
    let ailing = match tokio::time::timeout(ETCD_ANSWER, etcd::ailing(subject.config)).await {
        Ok(Ok(ailing)) => ailing,
        Ok(Err(error)) => {
            return vec![wrong(
                format!("the member beside this control plane does not answer: {error:#}"),
                format!("`systemctl restart {}`", units::ETCD),
            )];
        }
        Err(_) => return vec![wrong("it does not answer", format!("`systemctl restart {}`", units::ETCD))],
    };
    let one = |(member, why): (keelson_store::EtcdMember, &'static str)| {
        let name = if member.name.is_empty() { member.peer_urls.join(",") } else { member.name };
        wrong(
            format!("member {name} {why}"),
            format!(
                "Look at it there, with `systemctl status {}`; if it is gone for good: `keelson node leave {name}`",
                units::ETCD
            ),
        )
    };
    match ailing.is_empty() {
        true => vec![good("all members answer and vote")],
        false => ailing.into_iter().map(one).collect(),
    }
}

/// Nodes that are not Ready.
pub async fn other_nodes(subject: &Subject<'_>) -> Vec<Found> {
    if subject.role == Role::Worker {
        return Vec::new();
    }
    let params = ListParams::default();
    let asked = asked(subject, async |client| Ok(Api::<Node>::all(client).list(&params).await?.items)).await;
    let Some(nodes) = asked else { return Vec::new() };
    let mut found = Vec::new();
    for node in nodes {
        let name = node.metadata.name.unwrap_or_default();
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready =
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if name != subject.node && !ready {
            found.push(wrong(
                format!("node {name} is not Ready"),
                format!("If it is gone for good: `keelson node leave {name}`; else look at it there, with `keelson doctor`"),
            ));
        }
    }
    if found.is_empty() { vec![good("all Ready")] } else { found }
}

/// Tokens that let machines join for ever.
pub async fn tokens(subject: &Subject<'_>) -> Vec<Found> {
    if subject.role == Role::Worker {
        return Vec::new();
    }
    let asked = asked(subject, async |client| token::list(&client).await).await;
    let Some(tokens) = asked else { return Vec::new() };
    let endless: Vec<String> =
        tokens.into_iter().filter(|one| one.expires.is_none()).map(|one| one.id).collect();
    vec![match endless.as_slice() {
        [] => good("each has an end"),
        some => notice(
            format!("{} let machines join for ever", some.join(", ")),
            format!("`keelson token delete {}`", some.join(" ")),
        ),
    }]
}
