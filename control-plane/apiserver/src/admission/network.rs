//! DefaultIngressClass: an Ingress without a class gets the one marked as default.

use super::storage::default_object;
use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use keelson_api::doc::Doc;
use keelson_api::f::networking_v1 as n;
use keelson_api::status::Status;
use std::sync::Arc;

const GROUP: &str = "networking.k8s.io";

pub(super) struct DefaultIngressClass {
    reads: Arc<dyn ClusterReads>,
}

impl DefaultIngressClass {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> DefaultIngressClass {
        DefaultIngressClass { reads }
    }
}

impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn mutate(
        &self,
        ingress: &mut Doc,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let path = [n::ingress::SPEC, n::ingress_spec::INGRESS_CLASS_NAME];
        if !a.is_main(GROUP, "ingresses")
            || a.operation != Operation::Create
            || ingress.get(&path).is_some()
            || ingress.meta().annotation("kubernetes.io/ingress.class").is_some()
        {
            return Ok(());
        }
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(name) = default_object(self.reads.as_ref(), GROUP, "ingressclasses", &marks) {
            ingress.set(&path, name);
        }
        Ok(())
    }
}
