//! Leader election as upstream's client-go: one holder of a Lease at a time, so that of several control planes one
//! schedules and one runs the controllers.
//!
//! A candidate takes the Lease when it has no holder, or when it has not changed for its duration as this process
//! observed it (by the monotonic clock; other machines' clocks are never compared). Every write carries the
//! resourceVersion that was read. A holder that cannot renew in time ends its work before the Lease can pass to another.

use std::future::Future;
use std::time::Duration;

use keelson_daemon::drain::{self, DrainWatcher};
use keelson_daemon::{Clock, Context};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long giving a Lease back may take: where the store cannot answer, the others wait for its end instead.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Which Lease, who asks, and how long things take; the times must differ as upstream's do.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    /// The Lease's name: `kube-scheduler`, `kube-controller-manager`.
    pub name: String,
    /// Unique among the candidates.
    pub identity: String,
    /// How long a Lease that is not renewed keeps others away.
    pub lease: Duration,
    /// How long a holder tries to renew before it gives up; below `lease`.
    pub renew: Duration,
    /// Between attempts.
    pub retry: Duration,
}

impl Election {
    /// In kube-system, with upstream's times.
    pub fn new(name: &str, identity: &str) -> Election {
        Election {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Why leading ended.
#[derive(Debug, thiserror::Error)]
pub enum LeadError<E> {
    /// The Lease could not be renewed in time, or another holds it.
    #[error("the lease {name} was lost")]
    Lost { name: String },
    #[error("the leader's work")]
    Work(#[source] E),
}

/// What a look at the Lease asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    /// Nobody's, or not renewed for its duration.
    Take,
    Renew,
    Wait,
}

/// The Lease as it was seen last, and since when.
#[derive(Default)]
struct Observed {
    last: Option<(Value, Instant)>,
}

impl Observed {
    /// Pure but for what it remembers: the moment is an argument.
    fn step(&mut self, spec: Option<&Value>, identity: &str, lease: Duration, now: Instant) -> Step {
        let Some(spec) = spec else { return Step::Create };
        let since = match &self.last {
            Some((last, since)) if last == spec => *since,
            _ => now,
        };
        self.last = Some((spec.clone(), since));
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let stated = spec["leaseDurationSeconds"].as_u64().map_or(lease, Duration::from_secs);
        if holder == identity {
            Step::Renew
        } else if holder.is_empty() || now.duration_since(since) >= stated {
            Step::Take
        } else {
            Step::Wait
        }
    }
}

/// Waits for the Lease, does `work` while it is held, and gives it back when the process drains. `work` is told to drain
/// when the Lease is lost; what then does not end in time is dropped.
pub async fn lead<F, Fut, E>(
    client: kube::Client,
    election: Election,
    ctx: Context,
    work: F,
) -> Result<(), LeadError<E>>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    let mut candidate = Candidate::new(client, election, ctx.clock.clone());
    if !candidate.acquire(&ctx.drain).await {
        return Ok(());
    }
    let name = candidate.election.name.clone();
    tracing::info!(lease = %name, identity = %candidate.election.identity, "became the leader");
    let (trigger, watcher) = drain::channel();
    let mut task = tokio::spawn(work(Context { drain: watcher, ..ctx.clone() }));
    let lost = tokio::select! {
        ended = &mut task => {
            candidate.release().await;
            return match ended {
                Ok(result) => result.map_err(LeadError::Work),
                Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
                Err(_) => Ok(()),
            };
        }
        () = candidate.keep() => true,
        () = ctx.drain.drained() => false,
    };
    // The work ends before another may begin it.
    let limit = candidate.election.lease - candidate.election.renew;
    let ended = trigger.drain(limit / 2).await;
    if tokio::time::timeout(limit / 4, &mut task).await.is_err() {
        tracing::warn!(lease = %name, ?ended, "the leader's work did not end in time and is dropped");
        task.abort();
    }
    if lost {
        return Err(LeadError::Lost { name });
    }
    candidate.release().await;
    Ok(())
}

struct Candidate {
    api: Api<DynamicObject>,
    resource: ApiResource,
    election: Election,
    clock: Clock,
    observed: Observed,
}

impl Candidate {
    fn new(client: kube::Client, election: Election, clock: Clock) -> Candidate {
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"),
            "leases",
        );
        let api = Api::namespaced_with(client, &election.namespace, &resource);
        Candidate { api, resource, election, clock, observed: Observed::default() }
    }

    /// True once this candidate holds the Lease; false when the process drains.
    async fn acquire(&mut self, drain: &DrainWatcher) -> bool {
        loop {
            match drain.until(self.attempt()).await {
                Some(true) => return true,
                Some(false) => {}
                None => {
                    // What was under way may have taken it.
                    self.release().await;
                    return false;
                }
            }
            // Spread, so that candidates do not collide again and again.
            let pause = self.election.retry + self.election.retry.mul_f64(rand::random::<f64>() * 0.2);
            if drain.until(tokio::time::sleep(pause)).await.is_none() {
                return false;
            }
        }
    }

    /// Renews until that fails for too long.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.election.retry).await;
            let until = renewed + self.election.renew;
            match tokio::time::timeout_at(until, self.attempt()).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) if Instant::now() < until => {}
                _ => return,
            }
        }
    }

    /// One look and one write; true if this candidate holds the Lease after it.
    async fn attempt(&mut self) -> bool {
        let found = match self.api.get_opt(&self.election.name).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(lease = %self.election.name, error = %error, "the lease cannot be read");
                return false;
            }
        };
        let spec = found.as_ref().map(|lease| &lease.data["spec"]);
        let step = self.observed.step(spec, &self.election.identity, self.election.lease, Instant::now());
        let params = PostParams::default();
        let written = match (step, found) {
            (Step::Wait, _) => return false,
            (Step::Create, _) | (_, None) => {
                let mut lease = DynamicObject::new(&self.election.name, &self.resource);
                lease.metadata = ObjectMeta {
                    name: Some(self.election.name.clone()),
                    namespace: Some(self.election.namespace.clone()),
                    ..ObjectMeta::default()
                };
                self.hold(&mut lease.data, true);
                self.api.create(&params, &lease).await
            }
            (step, Some(mut lease)) => {
                self.hold(&mut lease.data, step == Step::Take);
                self.api.replace(&self.election.name, &params, &lease).await
            }
        };
        match written {
            Ok(lease) => {
                self.observed.last = Some((lease.data["spec"].clone(), Instant::now()));
                true
            }
            // Another candidate was first.
            Err(kube::Error::Api(status)) if status.code == 409 => false,
            Err(error) => {
                tracing::warn!(lease = %self.election.name, error = %error, "the lease cannot be written");
                false
            }
        }
    }

    fn hold(&self, data: &mut Value, takes: bool) {
        let now = format!("{:.6}", self.clock.now());
        if !data["spec"].is_object() {
            data["spec"] = json!({});
        }
        let spec = &mut data["spec"];
        if takes {
            let before = spec["leaseTransitions"].as_u64();
            spec["leaseTransitions"] = json!(before.map_or(0, |before| before + 1));
            spec["holderIdentity"] = json!(self.election.identity);
            spec["acquireTime"] = json!(now);
        }
        spec["leaseDurationSeconds"] = json!(self.election.lease.as_secs());
        spec["renewTime"] = json!(now);
    }

    /// Lets the next candidate in at once.
    async fn release(&mut self) {
        let name = self.election.name.clone();
        if tokio::time::timeout(GIVE_BACK, self.give_back()).await.is_err() {
            tracing::warn!(lease = %name, "the lease was not given back in time; it ends by itself");
        }
    }

    async fn give_back(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.election.name).await else { return };
        if lease.data["spec"]["holderIdentity"].as_str() != Some(&self.election.identity) {
            return;
        }
        lease.data["spec"]["holderIdentity"] = json!("");
        lease.data["spec"]["leaseDurationSeconds"] = json!(1);
        if let Err(error) = self.api.replace(&self.election.name, &PostParams::default(), &lease).await {
            tracing::debug!(lease = %self.election.name, error = %error, "the lease was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, renewed: &str) -> Value {
        json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed})
    }

    /// A client of an API server that answers the first `answers` requests (there is no Lease; it is made) and then no more.
    fn falls_silent(answers: usize) -> kube::Client {
        use http_body_util::{BodyExt as _, Full};
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let number = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                if number >= answers {
                    std::future::pending::<()>().await;
                }
                let missing = request.method() == http::Method::GET;
                let body = match missing {
                    true => json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                        "message": "no lease", "code": 404})
                    .to_string()
                    .into(),
                    false => request.into_body().collect().await?.to_bytes(),
                };
                let status = if missing { 404 } else { 201 };
                let response = http::Response::builder().status(status).body(Full::new(body));
                Ok::<_, tower::BoxError>(response.expect("a response"))
            }
        });
        kube::Client::new(service, "default")
    }

    /// How long a candidate takes to end after a minute, and whether it led.
    async fn ends_after(answers: usize) -> (Duration, bool) {
        let (trigger, watcher) = drain::channel();
        let context = Context {
            clock: Clock::system(),
            drain: watcher,
            readiness: keelson_daemon::Readiness::default(),
        };
        let led = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let leading = led.clone();
        let work = move |context: Context| async move {
            leading.store(true, std::sync::atomic::Ordering::SeqCst);
            context.drain.drained().await;
            Ok::<(), std::convert::Infallible>(())
        };
        let task = tokio::spawn(lead(falls_silent(answers), Election::new("a", "me"), context, work));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let limit = Duration::from_secs(60);
        let (ended, _) = tokio::join!(tokio::time::timeout(limit, task), trigger.drain(limit));
        ended.expect("it ends").expect("no panic").expect("it was told to end");
        (begun.elapsed(), led.load(std::sync::atomic::Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_holds_nobody_up() {
        for (answers, leads) in [(0, false), (2, true)] {
            let (took, led) = ends_after(answers).await;
            assert_eq!(led, leads, "after {answers} answers");
            assert!(took <= GIVE_BACK + Duration::from_secs(1), "{took:?} after {answers} answers");
        }
    }

    #[test]
    fn takes_only_what_is_free_or_was_not_renewed() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let lease = Duration::from_secs(15);
        let mut observed = Observed::default();
        let mut check = |spec: Option<&Value>, seconds, expected| {
            assert_eq!(observed.step(spec, "me", lease, after(seconds)), expected, "at {seconds}");
        };
        check(None, 0, Step::Create);
        // An old time of another machine's clock says nothing.
        check(Some(&spec("other", "2001-01-01T00:00:00Z")), 1, Step::Wait);
        check(Some(&spec("other", "2001-01-01T00:00:00Z")), 15, Step::Wait);
        check(Some(&spec("other", "2001-01-01T00:00:02Z")), 16, Step::Wait);
        check(Some(&spec("other", "2001-01-01T00:00:02Z")), 30, Step::Wait);
        check(Some(&spec("other", "2001-01-01T00:00:02Z")), 31, Step::Take);
        check(Some(&spec("", "2001-01-01T00:00:02Z")), 32, Step::Take);
        check(Some(&spec("me", "2001-01-01T00:00:02Z")), 33, Step::Renew);
    }
}
