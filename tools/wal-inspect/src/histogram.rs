//! How often which size, in buckets that double.

use std::fmt::Write;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::place;

/// Counts of values: of 0, of 1, of 2 and 3, of 4 to 7, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Histogram {
    buckets: [u64; 65],
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

/// Values from `first` to `last`.
#[derive(Debug, Serialize)]
struct Bucket {
    first: u64,
    last: u64,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; 65], count: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Histogram {
    /// Counts `value`.
    pub(crate) fn take(&mut self, value: u64) {
        self.buckets[(u64::BITS - value.leading_zeros()) as usize] += 1;
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Counts what another has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// A line of figures, then a bar for each bucket, `columns` wide.
    pub(crate) fn text(&self, columns: usize) -> String {
        let Self { count, sum, min, max, .. } = self;
        if *count == 0 {
            return "none\n".to_owned();
        }
        let mean = sum / count;
        let mut text = format!("{count}, sum {sum}, smallest {min}, mean {mean}, largest {max}\n");
        let buckets: Vec<_> = self.buckets().collect();
        let label = |bucket: &Bucket| place::range(bucket.first, bucket.last);
        let width = |text: &dyn Fn(&Bucket) -> String| {
            buckets.iter().map(|bucket| text(bucket).len()).max().unwrap_or(0)
        };
        let (labels, counts) = (width(&label), width(&|bucket| bucket.count.to_string()));
        let room = columns.saturating_sub(INDENT.len() + labels + counts + 4).max(1) as u64;
        let highest = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1);
        for bucket in &buckets {
            let length = usize::try_from((bucket.count * room).div_ceil(highest)).unwrap_or(0);
            let (label, count, bar) = (label(bucket), bucket.count, "#".repeat(length));
            let line = format!("{INDENT}{label:>labels$}  {count:>counts$}  {bar}");
            writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
        }
        text
    }

    /// From the first that is not empty to the last.
    fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let first = self.buckets.iter().position(|&count| count > 0).unwrap_or(0);
        let end = self.buckets.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        (first..end).map(|number| {
            let first = if number == 0 { 0 } else { 1 << (number - 1) };
            let last = if number == 0 { 0 } else { first + (first - 1) };
            Bucket { first, last, count: self.buckets[number] }
        })
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Histogram", 5)?;
        fields.serialize_field("count", &self.count)?;
        fields.serialize_field("sum", &self.sum)?;
        fields.serialize_field("min", &(self.count > 0).then_some(self.min))?;
        fields.serialize_field("max", &(self.count > 0).then_some(self.max))?;
        fields.serialize_field("buckets", &self.buckets().collect::<Vec<_>>())?;
        fields.end()
    }
}

const INDENT: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_to_the_bucket_that_holds_them() {
        for value in [0, 1, 2, 3, 4, 7, 8, 1023, 1024, u64::MAX] {
            let mut histogram = Histogram::default();
            histogram.take(value);
            let [bucket] = &histogram.buckets().collect::<Vec<_>>()[..] else { panic!("{value}") };
            assert!((bucket.first..=bucket.last).contains(&value), "{value}: {bucket:?}");
            assert!(bucket.last == 0 || bucket.last / 2 < bucket.first, "{bucket:?} is too wide");
        }
    }

    #[test]
    fn bars_are_as_long_as_their_counts_and_end_at_the_last_column() {
        let mut histogram = Histogram::default();
        [4, 4, 5, 6, 16, 20, 40].iter().for_each(|value| histogram.take(*value));
        let lines = "7, sum 95, smallest 4, mean 13, largest 40
    4..=7  4  ########################
   8..=15  0
  16..=31  2  ############
  32..=63  1  ######
";
        assert_eq!(histogram.text(38), lines);
        assert_eq!(Histogram::default().text(38), "none\n");
    }

    #[test]
    fn two_added_are_one_that_counted_both() {
        let (mut one, mut other, mut both) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for value in 0..100 {
            if value % 3 == 0 { &mut one } else { &mut other }.take(value);
            both.take(value);
        }
        one.add(&other);
        assert_eq!(one, both);
    }
}
