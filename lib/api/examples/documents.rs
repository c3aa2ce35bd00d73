//! Writes discovery and OpenAPI documents of the built-in table into a folder, to look at or to compare:
//! `cargo run -p keelson-api --example documents -- <folder>`.

use keelson_api::{discovery, json, openapi, table::Table};
use keelson_base::gates::Gates;

fn main() -> std::io::Result<()> {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".into()));
    std::fs::create_dir_all(&folder)?;
    let texts = openapi::Descriptions::new();
    let table = Table::builtin(&Gates::default());
    let text = |doc: &keelson_api::doc::Doc| {
        let mut out = Vec::new();
        json::encode_canonical(doc, json::EncodeOptions::FULL, &mut out);
        out
    };
    std::fs::write(
        folder.join("aggregated_v2.json"),
        text(&discovery::aggregated(&table, false, discovery::Aggregated::V2)),
    )?;
    std::fs::write(
        folder.join("aggregated_v2_core.json"),
        text(&discovery::aggregated(&table, true, discovery::Aggregated::V2)),
    )?;
    std::fs::write(folder.join("api.json"), text(&discovery::api_versions(&table, "127.0.0.1:6443")))?;
    std::fs::write(folder.join("openapi_v3.json"), openapi::v3_index(&table, "v1.35.0").to_string())?;
    std::fs::write(folder.join("apis.json"), text(&discovery::group_list(&table)))?;
    for group in table.groups() {
        for version in table.versions(group) {
            let name = if group.is_empty() {
                format!("api__{version}")
            } else {
                format!("apis__{group}__{version}")
            };
            if let Some(list) = discovery::resource_list(&table, group, version) {
                std::fs::write(folder.join(format!("{name}.json")), text(&list))?;
            }
            if let Some(document) =
                openapi::v3(&table, group, version, "v1.35.0", &texts, openapi::Encoding::Json)
            {
                std::fs::write(folder.join(format!("{name}_openapi.json")), document)?;
            }
        }
    }
    std::fs::write(folder.join("swagger.json"), openapi::v2(&table, "v1.35.0", &texts))?;
    std::fs::write(folder.join("swagger.pb"), openapi::v2_proto(&table, "v1.35.0", &texts))
}
