//! ImageLocality.

use keelson_client::projections::PodView;

use crate::framework::*;

const MIB: i64 = 1024 * 1024;
const MIN: i64 = 23 * MIB;
const MAX_PER_CONTAINER: i64 = 1000 * MIB;

/// Prefers nodes that hold the pod's images.
pub struct ImageLocality;

/// Bytes of each of the pod's images times the share of nodes that hold it.
struct Sizes(Vec<(Box<str>, f64)>);

fn normalized(image: &str) -> String {
    let colon = image.rfind(':').map_or(-1, |i| i as i64);
    let slash = image.rfind('/').map_or(-1, |i| i as i64);
    if colon <= slash { format!("{image}:latest") } else { image.to_owned() }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

fn size_on(node: &NodeInfo, image: &str) -> Option<i64> {
    let images = &node.node.images;
    images.binary_search_by(|(name, _)| (**name).cmp(image)).ok().map(|i| images[i].1)
}

impl Score for ImageLocality {
    fn pre_score(&self, state: &mut CycleState, pod: &PodView, snapshot: &Snapshot, _: &[usize]) -> bool {
        let Some(pending) = &pod.pending else { return false };
        let total = snapshot.nodes.len() as f64;
        let sizes = pending
            .images
            .iter()
            .map(|image| {
                let image = normalized(image);
                let holders = snapshot.nodes.iter().filter(|n| size_on(n, &image).is_some()).count();
                (image.into_boxed_str(), holders as f64 / total)
            })
            .collect();
        state.write(self.name(), Sizes(sizes));
        true
    }

    fn score(&self, state: &CycleState, pod: &PodView, node: &NodeInfo) -> i64 {
        let (Some(Sizes(images)), Some(pending)) = (state.read::<Sizes>(self.name()), &pod.pending) else {
            return 0;
        };
        let sum: i64 = images
            .iter()
            .map(|(image, spread)| (size_on(node, image).unwrap_or(0) as f64 * spread) as i64)
            .sum();
        let max = MAX_PER_CONTAINER * (pending.container_count.max(1) as i64);
        MAX_NODE_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN)
    }
}
