//! The objects of one resource in a namespace that is going away.
//!
//! What always holds: whatever number there are, no more than a page of their metadata is held here, and what a deletion
//! of all answers (all of them, whole) is let go as it comes.

use futures::io::{copy, sink};
use keelson_client::Lean;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, ObjectList, PartialObjectMeta, Request};
use kube::discovery::ApiResource;

use crate::kit::gone_is_fine;

/// Objects that are read at once.
const PAGE: u32 = 500;

type Metadata = PartialObjectMeta<DynamicObject>;

/// How far they are read.
pub enum Pages {
    Begin,
    After(String),
    End,
}

/// See the module.
pub struct Objects {
    client: kube::Client,
    api: Api<Lean<Metadata>>,
}

impl Objects {
    pub fn new(client: kube::Client, namespace: &str, resource: &ApiResource) -> Objects {
        Objects { api: Api::namespaced_with(client.clone(), namespace, resource), client }
    }

    /// The first `limit` of them, or those after `token`.
    pub async fn page(
        &self,
        limit: u32,
        token: Option<String>,
    ) -> Result<ObjectList<Lean<Metadata>>, kube::Error> {
        let params = ListParams { limit: Some(limit), continue_token: token, ..ListParams::default() };
        self.api.list(&params).await
    }

    /// The next page of them; `None` after the last.
    pub async fn next(&self, pages: &mut Pages) -> Result<Option<Vec<Lean<Metadata>>>, kube::Error> {
        let token = match std::mem::replace(pages, Pages::End) {
            Pages::Begin => None,
            Pages::After(token) => Some(token),
            Pages::End => return Ok(None),
        };
        let page = self.page(PAGE, token).await?;
        if let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) {
            *pages = Pages::After(token);
        }
        Ok(Some(page.items))
    }

    /// Deletes one.
    pub async fn delete(&self, object: &Lean<Metadata>) -> Result<(), kube::Error> {
        match &object.0.metadata.name {
            Some(name) => gone_is_fine(self.api.delete(name, &DeleteParams::background()).await),
            None => Ok(()),
        }
    }

    /// Deletes all.
    pub async fn delete_collection(&self) -> Result<(), kube::Error> {
        let mut request = Request::new(self.api.resource_url())
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .map_err(kube::Error::BuildRequest)?;
        request.extensions_mut().insert("delete_collection");
        let answer = self.client.request_stream(request).await?;
        copy(answer, &mut sink()).await.map(drop).map_err(kube::Error::ReadEvents)
    }
}
