//! Lifecycle hooks: a command in the container, a request to the pod, or a pause.
use crate::cri::Cri;
use crate::probe::http;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use std::time::Duration;

/// Longest a hook's request may take; a command ends with the grace of its pod.
const REQUEST: Duration = Duration::from_secs(30);
const COMMAND: Duration = Duration::from_secs(3600);

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("command {command:?} exited with {code}: {output}")]
    Exit { command: Vec<String>, code: i32, output: String },
    #[error(transparent)]
    Runtime(#[from] crate::cri::CriError),
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error("{0}")]
    Invalid(String),
}

/// Runs a hook to its end. An answer of any status counts, as upstream has it: the request was made.
pub async fn run(
    cri: &Cri,
    hook: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ip: &str,
) -> Result<(), HookError> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = cri.exec_sync(id, command.clone(), COMMAND).await?;
        if answer.exit_code != 0 {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(1024);
            let output = String::from_utf8_lossy(&output).into_owned();
            return Err(HookError::Exit { command, code: answer.exit_code, output });
        }
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let request = http::Request::of(get, container, pod_ip).map_err(HookError::Invalid)?;
        http::get(&request, REQUEST).await?;
        return Ok(());
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(HookError::Invalid("the hook names no handler".into()))
}
