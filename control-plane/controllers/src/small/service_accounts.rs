//! A `default` service account in every namespace.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use kube::Api;
use kube::api::PostParams;

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, is_already_exists, is_namespace_terminating, is_not_found};

const NAME: &str = "default";

struct Controller(Base);

/// The service account controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "service-account-controller", shared, ctx);
    base.follow(&shared.namespaces);
    let queue = base.queue.clone();
    shared.service_accounts.on_change(move |change| {
        if change.new.is_none() && &*change.key.name == NAME {
            queue.add(ObjectKey::cluster(change.key.namespace.clone()));
        }
    });
    base.work(Controller, 2, |shared| async move {
        shared.namespaces.synced().await;
        shared.service_accounts.synced().await;
    })
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let shared = &self.0.shared;
        let Some(namespace) = shared.namespaces.get(key) else { return Ok(None) };
        if namespace.terminating || namespace.meta.deleted.is_some() {
            return Ok(None);
        }
        if shared.service_accounts.get(&ObjectKey::new(key.name.clone(), NAME)).is_some() {
            return Ok(None);
        }
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(NAME.to_owned());
        account.metadata.namespace = Some(key.name.to_string());
        let api: Api<ServiceAccount> = Api::namespaced(self.0.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(None),
            Err(error)
                if is_already_exists(&error) || is_namespace_terminating(&error) || is_not_found(&error) =>
            {
                Ok(None)
            }
            Err(error) => Err(ReconcileError::api("create the default service account")(error)),
        }
    }
}
