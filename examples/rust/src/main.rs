//! sp and top_k in f32, standard library alone, in text mode (decimal numbers: Rust reads no hexadecimal floats):
//!
//!     cargo build --release
//!     efcp-ref gen sp --decimal --cases 100 | target/release/mine | efcp-ref verify sp --cases 100
use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Write};

/// One argument: its shape, and its values as f64, which holds each of them.
struct Entry {
    shape: Vec<usize>,
    value: Vec<f64>,
}

type Case = HashMap<String, Entry>;

/// Reads `TYPE AXES SIZE... VALUE...`.
fn entry<'a>(words: &mut impl Iterator<Item = &'a str>) -> Entry {
    words.next().expect("a type");
    let mut next = || words.next().expect("a word");
    let axes = next().parse().expect("axes");
    let shape: Vec<usize> = (0..axes).map(|_| next().parse().expect("a size")).collect();
    let count = shape.iter().product();
    let value = (0..count).map(|_| next().parse().expect("a number")).collect();
    Entry { shape, value }
}

fn write(out: &mut impl Write, name: &str, kind: &str, words: &[String]) -> io::Result<()> {
    writeln!(out, "{name} {kind} 1 {} {}", words.len(), words.join(" "))
}

fn sp(case: &Case, out: &mut impl Write) -> io::Result<()> {
    let (indices, values, g) = (&case["indices"], &case["values"], &case["g"]);
    let k = values.shape[1];
    let omega: Vec<String> = (0..values.shape[0])
        .map(|r| (r * k..(r + 1) * k).map(|j| values.value[j] as f32 * g.value[indices.value[j] as usize] as f32).sum())
        .map(|x: f32| format!("{x:e}"))
        .collect();
    write(out, "omega", "float32", &omega)
}

fn top_k(case: &Case, out: &mut impl Write) -> io::Result<()> {
    let (a, k) = (&case["a"].value, case["k"].value[0] as usize);
    let mut order: Vec<usize> = (0..a.len()).collect();
    order.sort_by(|&i, &j| a[j].abs().total_cmp(&a[i].abs()));
    let kept = &order[..k];
    write(out, "indices", "int32", &kept.iter().map(|i| i.to_string()).collect::<Vec<_>>())?;
    write(out, "values", "float32", &kept.iter().map(|&i| format!("{:e}", a[i] as f32)).collect::<Vec<_>>())
}

fn main() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let mut words = text.split_whitespace();
    let mut out = BufWriter::new(io::stdout());
    while words.next().is_some() {
        let head: Vec<&str> = words.by_ref().take(4).collect(); // operation, seed, index, dtype
        let mut case = Case::new();
        while let Some(name) = words.next().filter(|&w| w != "end") {
            case.insert(name.to_string(), entry(&mut words));
        }
        writeln!(out, "case {}", head.join(" "))?;
        match head[0] {
            "sp" => sp(&case, &mut out)?,
            "top_k" => top_k(&case, &mut out)?,
            other => eprintln!("{other} is not offered"),
        }
        writeln!(out, "end")?;
    }
    Ok(())
}
