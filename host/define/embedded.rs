//! Definitions for one process alone: what names a connection is run with pushes and the embedded store instead.

use super::read::Definitions;
use super::typed::{OnlineIn, Push, Typed};

impl Definitions {
    /// The same definitions without connections: topics become pushes, files behind a connection are left out, values
    /// go to the embedded store.
    pub fn embedded(mut self) -> Definitions {
        for document in &mut self.documents {
            match &mut document.typed {
                Typed::Project(project) => project.online_store = None,
                Typed::Source(source) => {
                    if let Some(stream) = &mut source.stream
                        && let Some(kafka) = stream.value.kafka.take()
                    {
                        stream.value.push = Some(kafka.with(Push {}));
                    }
                    let elsewhere = source.batch.as_ref().and_then(|batch| batch.value.parquet.as_ref());
                    if elsewhere.is_some_and(|parquet| parquet.connection.is_some()) {
                        source.batch = None;
                    }
                }
                Typed::FeatureView(view) => {
                    if let Some(online) = &mut view.online
                        && online.value == OnlineIn::Elsewhere
                    {
                        online.value = OnlineIn::Switch(true);
                    }
                }
                Typed::Entity(_)
                | Typed::OnDemandFeatureView(_)
                | Typed::FeatureService(_)
                | Typed::Module(_)
                | Typed::Test(_) => {}
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::define::read_text;
    use crate::define::typed::{OnlineIn, Typed};

    #[test]
    fn connections_are_gone_and_the_rest_stays() {
        let text = "
kind: project
name: p
online_store: features
---
kind: source
name: s
stream: { kafka: { connection: events, topic: t } }
batch: { parquet: { connection: lake, path: x } }
event_time: at
schema: { at: timestamp }
---
kind: source
name: files
batch: { parquet: { path: x } }
event_time: at
schema: { at: timestamp }
---
kind: feature_view
name: v
entities: [e]
source: s
online: { connection: wide }
features: {}
";
        let documents = read_text("test", text).unwrap().embedded().documents;
        assert!(matches!(&documents[0].typed, Typed::Project(project) if project.online_store.is_none()));
        assert!(matches!(&documents[1].typed, Typed::Source(source)
            if source.batch.is_none() && source.stream.as_ref().is_some_and(|stream| stream.value.push.is_some())));
        assert!(matches!(&documents[2].typed, Typed::Source(source) if source.batch.is_some()));
        assert!(matches!(&documents[3].typed, Typed::FeatureView(view)
            if view.online.as_ref().is_some_and(|online| online.value == OnlineIn::Switch(true))));
    }
}
