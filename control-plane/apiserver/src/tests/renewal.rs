//! Certificates are renewed while the server runs.

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use keelson_pki::ClusterPki;
use std::sync::Arc;

use super::harness::*;
use crate::renewal;

#[tokio::test]
async fn new_connections_get_the_renewed_certificate() {
    let lab = Lab::start().await;
    let folder = tempfile::tempdir().unwrap();
    let pki = Arc::new(ClusterPki::ensure(folder.path(), &lab.pki.params).unwrap());
    let tls = ArcSwap::from_pointee(renewal::serving(&pki).unwrap());
    let (before, kubelets) = (tls.load_full(), lab.api.core().kubelets.tls.load_full());
    let day = |days: i64| Timestamp::now().checked_add(SignedDuration::from_hours(24 * days)).unwrap();
    assert!(renewal::once(lab.api.core(), &pki, &tls, day(100)).await.unwrap().is_none());
    assert!(Arc::ptr_eq(&before, &tls.load_full()));
    let renewed = renewal::once(lab.api.core(), &pki, &tls, day(130)).await.unwrap().unwrap();
    assert_ne!(renewed.apiserver.cert_pem, pki.apiserver.cert_pem);
    assert!(!Arc::ptr_eq(&before, &tls.load_full()));
    assert!(!Arc::ptr_eq(&kubelets, &lab.api.core().kubelets.tls.load_full()));
    assert!(renewal::once(lab.api.core(), &renewed, &tls, day(131)).await.unwrap().is_none());
}
