// next-plaid's engine with its defaults, as benchmarks/engine_runs/__init__.py wants it: build|search DATA INDEX OUT
use ndarray::Array2;
use next_plaid::{IndexConfig, MmapIndex, SearchParameters, UpdateConfig};
use std::{env, fs, time::Instant};

fn numbers<const N: usize, T>(path: String, from: fn([u8; N]) -> T) -> Vec<T> {
    let bytes = fs::read(path).expect("data");
    bytes.chunks_exact(N).map(|part| from(part.try_into().unwrap())).collect()
}

fn matrices(folder: &str, name: &str, offsets: &str) -> Vec<Array2<f32>> {
    let cells = numbers(format!("{folder}/{name}.bin"), f32::from_le_bytes);
    let starts = numbers(format!("{folder}/{offsets}.bin"), i64::from_le_bytes);
    let dim = cells.len() / *starts.last().unwrap() as usize;
    starts
        .windows(2)
        .map(|w| {
            let part = cells[w[0] as usize * dim..w[1] as usize * dim].to_vec();
            Array2::from_shape_vec(((w[1] - w[0]) as usize, dim), part).unwrap()
        })
        .collect()
}

fn peak_rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let (phase, data, index, out) = (&args[1], &args[2], &args[3], &args[4]);
    let result = if phase == "build" {
        let vectors = matrices(data, "vectors", "offsets");
        let start = Instant::now();
        MmapIndex::update_or_create(&vectors, index, &IndexConfig::default(), &UpdateConfig::default()).expect("build");
        let seconds = start.elapsed().as_secs_f64();
        let bytes: u64 = fs::read_dir(index).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        serde_json::json!({"seconds": seconds, "bytes": bytes, "peak_rss_mb": peak_rss_mb()})
    } else {
        let queries = matrices(data, "queries", "query_offsets");
        let opened = MmapIndex::load(index).expect("index");
        let parameters = SearchParameters { top_k: 10, ..Default::default() };
        let ask = |q: &Array2<f32>| opened.search(q, &parameters, None).expect("search").passage_ids;
        queries.iter().take(3).for_each(|q| { ask(q); });
        let (mut ids, mut ms) = (Vec::new(), Vec::new());
        for query in &queries {
            let start = Instant::now();
            let found = ask(query);
            ms.push(start.elapsed().as_secs_f64() * 1000.0);
            ids.push(found);
        }
        serde_json::json!({"ids": ids, "ms": ms, "peak_rss_mb": peak_rss_mb()})
    };
    fs::write(out, result.to_string()).unwrap();
}
