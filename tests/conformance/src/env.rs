//! What a test is given: the server, kubectl, a namespace of its own, waits, and clean-up.

use crate::api::{self, Api, NAMESPACES, SERVICE_ACCOUNTS};
use crate::kubectl::Kubectl;
use anyhow::{Context, Result, anyhow, bail};
use rand::Rng;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Upstream's `framework.PodStartTimeout`.
pub const POD_START: Duration = Duration::from_secs(5 * 60);
/// Upstream's `framework.DefaultNamespaceDeletionTimeout`.
pub const NAMESPACE_DELETION: Duration = Duration::from_secs(5 * 60);

/// The images, under one name for each that upstream's tests tell apart. All are the test agent.
pub const AGENT: &str = "keelson.dev/test-agent:2";
pub const AGENT_BEFORE: &str = "keelson.dev/test-agent:1";
pub const BUSYBOX: &str = "keelson.dev/test-busybox:1";
pub const NGINX: &str = "keelson.dev/test-nginx:1";
pub const NAUTILUS: &str = "keelson.dev/test-nautilus:1";
pub const PAUSE: &str = "keelson.dev/pause:1";

type CleanUp = Pin<Box<dyn Future<Output = Result<()>>>>;

/// What all tests of a run share.
pub struct Run {
    pub api: Api,
    pub kubectl: Kubectl,
    /// Longest wait of any kind; set where no test is meant to pass.
    pub patience: Option<Duration>,
}

struct Inner {
    run: Rc<Run>,
    base: &'static str,
    level: &'static str,
    namespace: String,
    steps: RefCell<Vec<String>>,
    clean_up: RefCell<Vec<CleanUp>>,
}

/// One test's environment; clones are the same.
#[derive(Clone)]
pub struct Env {
    inner: Rc<Inner>,
}

impl Env {
    pub fn new(run: Rc<Run>, base: &'static str, level: &'static str) -> Env {
        let namespace = format!("{base}-{}", random(4));
        let (steps, clean_up) = (RefCell::default(), RefCell::default());
        Env { inner: Rc::new(Inner { run, base, level, namespace, steps, clean_up }) }
    }

    pub fn api(&self) -> &Api {
        &self.inner.run.api
    }

    pub fn kubectl(&self) -> &Kubectl {
        &self.inner.run.kubectl
    }

    /// The test's namespace.
    pub fn ns(&self) -> &str {
        &self.inner.namespace
    }

    pub fn base(&self) -> &'static str {
        self.inner.base
    }

    /// The objects of a kind in the test's namespace.
    pub fn of(&self, kind: &api::Kind) -> api::Resource {
        self.api().of(kind).within(self.ns())
    }

    /// Notes what is done now; shown when the test fails.
    pub fn step(&self, text: impl Into<String>) {
        self.inner.steps.borrow_mut().push(text.into());
    }

    pub fn steps(&self) -> Vec<String> {
        self.inner.steps.borrow().clone()
    }

    /// Runs after the test, last one first, however it ended. A clean-up that fails fails the test.
    pub fn afterwards(&self, what: impl Future<Output = Result<()>> + 'static) {
        self.inner.clean_up.borrow_mut().push(Box::pin(what));
    }

    /// Makes the test's namespace and waits for its default service account, as upstream's framework does.
    pub async fn set_up(&self) -> Result<()> {
        self.create_namespace(&self.inner.namespace.clone()).await?;
        self.wait_for_service_account(self.ns()).await
    }

    /// Upstream's `f.CreateNamespace`: labelled for the run and with the pod security level; deleted afterwards.
    pub async fn create_namespace(&self, name: &str) -> Result<Value> {
        let labels = json!({
            "e2e-framework": self.base(),
            "pod-security.kubernetes.io/enforce": self.inner.level,
        });
        let namespaces = self.api().of(&NAMESPACES);
        let created = namespaces
            .create(&json!({ "metadata": { "name": name, "labels": labels } }))
            .await
            .context(name.to_owned())?;
        let name = name.to_owned();
        self.afterwards(async move {
            match namespaces.delete(&name, &json!({})).await {
                Err(error) if !api::not_found(&error) && !api::conflict(&error) => Err(error),
                _ => Ok(()),
            }
        });
        Ok(created)
    }

    pub async fn wait_for_service_account(&self, namespace: &str) -> Result<()> {
        let accounts = self.api().of(&SERVICE_ACCOUNTS).within(namespace);
        let what = format!("the default service account of {namespace}");
        self.wait(&what, Duration::from_millis(100), Duration::from_secs(120), async || {
            found(accounts.get("default").await).map(|account| account.map(drop))
        })
        .await
    }

    /// Every limit of a test goes through here.
    fn limit(&self, time: Duration) -> Duration {
        self.inner.run.patience.map_or(time, |most| time.min(most))
    }

    /// Asks again after each interval until there is a value; an error ends the wait.
    pub async fn wait<T>(
        &self,
        what: &str,
        interval: Duration,
        within: Duration,
        mut ask: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + self.limit(within);
        loop {
            if let Some(value) = ask().await.with_context(|| format!("waiting for {what}"))? {
                return Ok(value);
            }
            if Instant::now() > end {
                bail!("waited {} s in vain for {what}", within.as_secs());
            }
            tokio::time::sleep(interval.min(self.limit(within))).await;
        }
    }

    /// Lets time pass, where the test is that nothing happens in it.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(self.limit(time)).await;
    }

    /// A future's value, or an error when it takes too long.
    pub async fn within<T>(
        &self,
        what: &str,
        time: Duration,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::time::timeout(self.limit(time), future)
            .await
            .unwrap_or_else(|_| Err(anyhow!("waited {} s in vain for {what}", time.as_secs())))
    }

    /// Runs what [`Env::afterwards`] was given.
    pub async fn clean_up(&self) -> Result<()> {
        let mut outcome = Ok(());
        loop {
            let next = self.inner.clean_up.borrow_mut().pop();
            let Some(next) = next else { return outcome };
            if let Err(error) = next.await {
                outcome = outcome.and(Err(error.context("cleaning up")));
            }
        }
    }
}

/// `None` for a NotFound answer.
pub fn found(outcome: Result<Value>) -> Result<Option<Value>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if api::not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Random digits, as upstream's `framework.RandomSuffix`.
pub fn random(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(b'0' + random.random_range(0..10))).collect()
}

/// Random lower-case letters and digits without those that make words, as `generateName` appends.
pub fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}
