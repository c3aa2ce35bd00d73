//! Clients that read registers and write them by compare-and-swap, all at once, and the history of it.

use crate::linear::{self, Answer, Call, Event};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const REGISTERS: usize = 3;
/// The clients' rest between two rounds of a read and a write.
const REST: Duration = Duration::from_millis(120);
/// What a call may take; after that its answer is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(15);
const KEY: &str = "value";

fn name(register: usize) -> String {
    format!("register-{register}")
}

/// The histories of all registers.
#[derive(Clone, Default)]
pub struct Histories(Arc<Mutex<(usize, [Vec<Event>; REGISTERS])>>);

/// What was recorded, added up.
#[derive(Debug, Default)]
pub struct Counts {
    pub reads: usize,
    pub swapped: usize,
    pub conflicts: usize,
    pub unknown: usize,
}

impl Histories {
    fn begin(&self, register: usize, what: Call) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.0 += 1;
        let call = all.0;
        all.1[register].push(Event::Begin { call, what });
        call
    }

    fn end(&self, register: usize, call: usize, answer: Answer) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.1[register].push(Event::End { call, answer });
    }

    /// Checks each register's; what was in them.
    pub fn check(&self) -> Result<Counts, String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = Counts::default();
        for (register, history) in all.1.iter().enumerate() {
            linear::check(0, history).map_err(|what| format!("register {register}: {what}"))?;
            for event in history {
                match event {
                    Event::End { answer: Answer::Read(_), .. } => counts.reads += 1,
                    Event::End { answer: Answer::Swapped, .. } => counts.swapped += 1,
                    Event::End { answer: Answer::Conflict, .. } => counts.conflicts += 1,
                    Event::End { answer: Answer::Unknown, .. } => counts.unknown += 1,
                    Event::Begin { .. } => {}
                }
            }
        }
        Ok(counts)
    }
}

/// Makes the registers, all 0.
pub async fn make(api: &Api<ConfigMap>) -> kube::Result<()> {
    for register in 0..REGISTERS {
        let made = ConfigMap {
            metadata: ObjectMeta { name: Some(name(register)), ..ObjectMeta::default() },
            data: Some([(KEY.to_owned(), "0".to_owned())].into()),
            ..ConfigMap::default()
        };
        api.create(&PostParams::default(), &made).await?;
    }
    Ok(())
}

/// One client, until the file `stop` is there.
pub async fn client(id: usize, api: Api<ConfigMap>, histories: Histories, stop: PathBuf) {
    let mut serial = 0u64;
    while !stop.exists() {
        serial += 1;
        let register = (id + usize::try_from(serial).unwrap_or_default()) % REGISTERS;
        if let Some(found) = read(&api, &histories, register).await {
            let to = (id as u64 + 1) * 1_000_000_000 + serial;
            swap(&api, &histories, register, found, to).await;
        }
        tokio::time::sleep(REST).await;
    }
}

async fn read(api: &Api<ConfigMap>, histories: &Histories, register: usize) -> Option<ConfigMap> {
    let call = histories.begin(register, Call::Read);
    let answer = tokio::time::timeout(PATIENCE, api.get(&name(register))).await;
    let found = answer.ok().and_then(Result::ok);
    let seen = found.as_ref().and_then(value_of);
    histories.end(register, call, seen.map_or(Answer::Unknown, Answer::Read));
    found
}

async fn swap(api: &Api<ConfigMap>, histories: &Histories, register: usize, found: ConfigMap, to: u64) {
    let Some(from) = value_of(&found) else { return };
    let mut wanted = found;
    wanted.metadata.managed_fields = None;
    wanted.data = Some([(KEY.to_owned(), to.to_string())].into());
    let call = histories.begin(register, Call::Swap { from, to });
    let (name, params) = (name(register), PostParams::default());
    let answer = match tokio::time::timeout(PATIENCE, api.replace(&name, &params, &wanted)).await {
        Ok(Ok(_)) => Answer::Swapped,
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Answer::Conflict,
        Ok(Err(_)) | Err(_) => Answer::Unknown,
    };
    histories.end(register, call, answer);
}

fn value_of(register: &ConfigMap) -> Option<u64> {
    register.data.as_ref()?.get(KEY)?.parse().ok()
}
