//! `onefold verify`: the stream's values against batch.

use super::client::Reach;
use super::table::Table;
use super::{Global, print};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Compare the streamed values with batch over the same rows, bit for bit; exit 1 if any differ.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold verify product_stats customer_stats")]
pub struct VerifyArgs {
    /// Feature views; all if none are named.
    views: Vec<String>,
}

pub fn run(args: &VerifyArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold verify")?;
    let bar = if global.progress { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_message("comparing every value");
    bar.enable_steady_tick(Duration::from_millis(100));
    let told = reach.post_json(&reach.path(&["verify"])?, &json!({ "views": args.views }));
    bar.finish_and_clear();
    let told = told?;
    print(&if global.json { told.to_string() } else { text(&told) })?;
    let is_equal = told["differ"] == 0 && told["unreadable"] == 0;
    Ok(if is_equal { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn text(told: &Value) -> String {
    let number = |member: &str| told[member].as_u64().unwrap_or(0);
    let mut text = format!(
        "{} values compared: {} differ, {} failed, {} dead letters left out, {} unreadable",
        number("compared"),
        number("differ"),
        number("failed"),
        number("dead_letters"),
        number("unreadable")
    );
    for reason in told["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("\nunreadable: {reason}"));
    }
    let differences = told["differences"].as_array().filter(|differences| !differences.is_empty());
    if let Some(differences) = differences {
        let mut table = Table::new(&["view", "feature", "entity", "streamed", "batch"]);
        for one in differences {
            let entity = one["entity"].as_object().into_iter().flatten();
            let entity: Vec<String> = entity.map(|(name, value)| format!("{name}={}", plain(value))).collect();
            let (view, feature) = (plain(&one["view"]), plain(&one["feature"]));
            table.row([view, feature, entity.join(" "), plain(&one["streamed"]), plain(&one["batch"])]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_listed_below_the_sum() {
        let told = json!({
            "compared": 3, "differ": 1, "failed": 0, "dead_letters": 2, "unreadable": 0, "reasons": [],
            "differences": [{ "view": "v", "feature": null, "entity": { "id": "x" }, "streamed": "1", "batch": "2" }],
        });
        let lines = [
            "3 values compared: 1 differ, 0 failed, 2 dead letters left out, 0 unreadable",
            "view  feature  entity  streamed  batch",
            "v     -        id=x    1         2",
        ];
        assert_eq!(text(&told), lines.join("\n"));
    }
}
