"""The dashboard as code: `make dashboard` writes dashboards/rakuten.json, which Grafana loads when it starts.

Built with Grafana's own foundation SDK, so its shape is what Grafana's schema allows.
"""

import sys
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BarGaugeDisplayMode, BigValueGraphMode, BigValueTextMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef

OUT = Path(__file__).parent / "dashboards" / "rakuten.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
Panel = timeseries.Panel | stat.Panel | bargauge.Panel
FRACTION, SECONDS, RATE = "percentunit", "s", "reqps"


def query(expr: str, legend: str = "", instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend or "__auto")
    return target.instant() if instant else target.range()


def time_series(title: str, unit: str, *queries: prometheus.Dataquery, width: int = 8) -> timeseries.Panel:
    panel = timeseries.Panel().title(title).datasource(SOURCE).unit(unit).height(7).span(width).min(0)
    for target in queries:
        panel = panel.with_target(target)
    return panel


def number(title: str, unit: str, expr: str, legend: str = "") -> stat.Panel:
    panel = stat.Panel().title(title).datasource(SOURCE).unit(unit).height(4).span(4)
    return panel.graph_mode(BigValueGraphMode.NONE).with_target(query(expr, legend, instant=True))


def bars(title: str, expr: str, legend: str) -> bargauge.Panel:
    panel = bargauge.Panel().title(title).datasource(SOURCE).height(10).span(12).min(0)
    return panel.display_mode(BarGaugeDisplayMode.BASIC).with_target(query(expr, legend, instant=True))


LATENCY = "modality:rakuten_api_request_duration_seconds"
ROWS: dict[str, list[Panel]] = {
    "The model": [
        number("API answers", "none", 'min(up{job="api"})'),
        number("Model", "string", "rakuten_api_model_info", "{{version}}").text_mode(BigValueTextMode.NAME),
        number("Weighted F1, out of fold", FRACTION, 'max(rakuten_model_score{score="weighted_f1"})'),
        number("Since training", SECONDS, "time() - max(rakuten_model_trained_timestamp_seconds)"),
        number("Drift alarms", "none", "max(rakuten_drift_alarms)"),
        number("Pipeline succeeded", "none", "max(rakuten_pipeline_succeeded)"),
    ],
    "Requests": [
        time_series("Requests", RATE, query("sum by (route) (rate(rakuten_api_requests_total[5m]))", "{{route}}")),
        time_series(
            "Latency by modality",
            SECONDS,
            query(f"{LATENCY}:p50_5m", "{{modality}} p50"),
            query(f"{LATENCY}:p99_5m", "{{modality}} p99"),
        ),
        time_series(
            "Refused and failed requests",
            RATE,
            query("sum by (code) (rate(rakuten_api_problems_total[5m]))", "{{code}}"),
        ),
        time_series("Waiting products", "none", query("sum(rakuten_api_waiting_products)", "waiting")),
        time_series(
            "Products scored at once",
            "none",
            query(
                "sum(rate(rakuten_api_batch_products_sum[5m])) / sum(rate(rakuten_api_batch_products_count[5m]))",
                "mean",
            ),
        ),
        time_series("Lag of the prediction log", SECONDS, query("max(rakuten_api_live_log_lag_seconds)", "lag")),
    ],
    "Predictions": [
        bars(
            "By code, last hour",
            "sort_desc(sum by (prdtypecode) (increase(rakuten_api_predictions_total[1h])))",
            "{{prdtypecode}}",
        ),
        bars(
            "Confidence up to, last hour",
            "sort(sum by (le) (increase(rakuten_api_confidence_bucket[1h])))",
            "{{le}}",
        ),
        time_series(
            "Share to review",
            FRACTION,
            query("job:rakuten_api_to_review:ratio_rate30m", "live"),
            query('max(rakuten_review_share{which="promised"})', "expected"),
            width=12,
        ),
        time_series(
            "Images",
            RATE,
            query("sum by (outcome) (rate(rakuten_api_pictures_total[5m]))", "{{outcome}}"),
            width=12,
        ),
    ],
    "Drift": [
        bars(
            "Drift of each column over its threshold (1: drifted)",
            "sort_desc(max by (column) (rakuten_drift_score) / max by (column) (rakuten_drift_threshold))",
            "{{column}}",
        ),
        time_series(
            "Weighted F1 by later labels",
            FRACTION,
            query("max by (which, products) (rakuten_live_weighted_f1)", "{{products}}, {{which}}"),
            width=12,
        ),
        time_series(
            "Precision of automatic decisions, by audited products",
            FRACTION,
            query("max by (which) (rakuten_live_precision)", "{{which}}"),
            width=12,
        ),
        time_series(
            "Novel products: share, interval, promised, limit of its lower end",
            FRACTION,
            query("max by (which) (rakuten_novel_share)", "{{which}}"),
            width=12,
        ),
        number("Audited products", "none", "max(rakuten_live_precision_products)").span(12),
        time_series(
            "Since the last drift report",
            SECONDS,
            query("time() - max(rakuten_drift_checked_timestamp_seconds)", "ago"),
            width=12,
        ),
        time_series("Last pipeline run", SECONDS, query("max(rakuten_pipeline_duration_seconds)", "took"), width=12),
    ],
}


def build() -> str:
    """The dashboard's JSON."""
    board = dashboard.Dashboard("Rakuten classification").uid("rakuten").tags(["rakuten"]).readonly()
    board = board.refresh("30s").time("now-6h", "now").timezone("browser")
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


if __name__ == "__main__":
    OUT.write_text(build(), encoding="utf-8")
    sys.stdout.write(f"{OUT}\n")
