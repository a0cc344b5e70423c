//! Two panels over the number of appenders that wait: how many entries get durable, and how long one takes.

use std::{error::Error, path::Path};

use plotters::{coord::Shift, prelude::*};

/// What was measured for one log.
pub struct Line {
    /// The log's.
    pub name: &'static str,
    /// By the number of appenders.
    pub points: Vec<Point>,
}

/// What so many appenders got.
pub struct Point {
    /// Each waits for its entry before the next.
    pub appenders: usize,
    /// Entries a second, of all of them.
    pub rate: f64,
    /// What half of the entries did not exceed, in microseconds.
    pub half_us: f64,
    /// What 99 percent of the entries did not exceed, in microseconds.
    pub most_us: f64,
}

/// Draws an SVG.
///
/// # Errors
/// The disk's.
///
/// # Panics
/// If there is no point to draw.
pub fn draw(path: &Path, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let rates: Vec<_> = curves(lines, |point| point.rate).collect();
    let halves = curves(lines, |point| point.half_us);
    let most = curves(lines, |point| point.most_us).map(|curve| Curve { dashed: true, ..curve });
    let latencies: Vec<_> = halves.chain(most).collect();

    let picture = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    picture.fill(&WHITE)?;
    let (left, right) = picture.split_horizontally(WIDTH / 2);
    panel(&left, "entries a second", &rates)?;
    panel(&right, "microseconds for one entry: p50 solid, p99 dashed", &latencies)?;
    picture.present()?;
    Ok(())
}

/// One line of a panel.
struct Curve {
    /// As the legend shows it.
    name: &'static str,
    color: RGBColor,
    dashed: bool,
    /// By the logarithm of the number of appenders, to base 2.
    points: Vec<(f64, f64)>,
}

/// The same figure of each log.
fn curves(lines: &[Line], figure: impl Fn(&Point) -> f64) -> impl Iterator<Item = Curve> {
    lines.iter().zip(COLORS).map(move |(line, color)| Curve {
        name: line.name,
        color,
        dashed: false,
        points: line
            .points
            .iter()
            .map(|point| ((point.appenders as f64).log2(), figure(point)))
            .collect(),
    })
}

/// Both axes are logarithmic.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    curves: &[Curve],
) -> Result<(), Box<dyn Error>> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let last = all().map(|(appenders, _)| *appenders).fold(0.0, f64::max);
    let least = all().map(|(_, figure)| *figure).fold(f64::INFINITY, f64::min);
    let greatest = all().map(|(_, figure)| *figure).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last, (least / 1.4..greatest * 1.4).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(9)
        .x_max_light_lines(0)
        .x_label_formatter(&|appenders| format!("{:.0}", appenders.exp2()))
        .x_desc("appenders, each waiting for one entry of 128 B")
        .y_label_formatter(&|figure| short(*figure))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 15))
        .draw()?;
    for curve in curves {
        let style = curve.color.stroke_width(2);
        if curve.dashed {
            let points = curve.points.iter().copied();
            chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?;
            continue;
        }
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style).point_size(3))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 15))
        .draw()?;
    Ok(())
}

/// `20000` as `20k`.
fn short(figure: f64) -> String {
    match figure {
        1e6.. => format!("{}M", figure / 1e6),
        1e3.. => format!("{}k", figure / 1e3),
        _ => format!("{figure}"),
    }
}

const WIDTH: u32 = 1120;
const HEIGHT: u32 = 480;
const FONT: &str = "sans-serif";
/// One for each log, told apart also by who sees red and green alike.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(120, 120, 120), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];
