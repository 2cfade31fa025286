// next-plaid's engine with its defaults, as benchmarks/engine_runs/__init__.py wants it: build|search DATA INDEX OUT
// An effort: fields of its SearchParameters.
use half::f16;
use ndarray::Array2;
use next_plaid::{IndexConfig, MmapIndex, SearchParameters, UpdateConfig};
use serde_json::{json, Map, Value};
use std::{env, fs, fs::File, io::BufReader, io::Read, time::Instant};

const LADDER_S: f64 = 1200.0;

// the file behind an npy header, whether it is of float16, and how many bytes are left in it
fn npy(path: &str) -> (BufReader<File>, bool, usize) {
    let mut file = BufReader::new(File::open(path).expect("data"));
    let mut start = [0u8; 10];
    file.read_exact(&mut start).expect("npy");
    let mut header = vec![0u8; u16::from_le_bytes([start[8], start[9]]) as usize];
    file.read_exact(&mut header).expect("npy");
    let size = fs::metadata(path).expect("data").len() as usize;
    (file, String::from_utf8_lossy(&header).contains("<f2"), size - 10 - header.len())
}

fn matrices(folder: &str, name: &str, offsets: &str) -> Vec<Array2<f32>> {
    let (mut file, _, size) = npy(&format!("{folder}/{offsets}.npy"));
    let mut bytes = vec![0u8; size];
    file.read_exact(&mut bytes).expect("offsets");
    let starts: Vec<usize> = bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect();
    let (mut file, short, size) = npy(&format!("{folder}/{name}.npy"));
    let width = if short { 2 } else { 4 };
    let dim = size / width / starts.last().unwrap();
    let mut matrix = |rows: usize| {
        let mut bytes = vec![0u8; rows * dim * width];
        file.read_exact(&mut bytes).expect("rows");
        let cells = if short {
            bytes.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
        } else {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        Array2::from_shape_vec((rows, dim), cells).unwrap()
    };
    starts.windows(2).map(|w| matrix(w[1] - w[0])).collect()
}

fn peak_rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

// user and system time of all threads; the kernel counts in hundredths
fn cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn parameters(effort: &Map<String, Value>) -> SearchParameters {
    let mut fields = serde_json::to_value(SearchParameters { top_k: 10, ..Default::default() }).unwrap();
    for (name, value) in effort {
        assert!(fields.get(name).is_some(), "unknown setting {name}");
        fields[name] = value.clone();
    }
    serde_json::from_value(fields).expect("effort")
}

fn timed(opened: &MmapIndex, queries: &[Array2<f32>], effort: &Map<String, Value>) -> Value {
    let parameters = parameters(effort);
    let ask = |q: &Array2<f32>| opened.search(q, &parameters, None).expect("search").passage_ids;
    queries.iter().take(3).for_each(|q| { ask(q); });
    let (mut ids, mut ms, cpu) = (Vec::new(), Vec::new(), cpu_s());
    for query in queries {
        let start = Instant::now();
        let found = ask(query);
        ms.push(start.elapsed().as_secs_f64() * 1000.0);
        ids.push(found);
    }
    json!({"effort": effort, "ids": ids, "ms": ms, "cpu_s": cpu_s() - cpu})
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let (phase, data, index, out) = (&args[1], &args[2], &args[3], &args[4]);
    let result = if phase == "build" {
        let vectors = matrices(data, "vectors", "offsets");
        let start = Instant::now();
        MmapIndex::update_or_create(&vectors, index, &IndexConfig::default(), &UpdateConfig::default()).expect("build");
        json!({"seconds": start.elapsed().as_secs_f64(), "peak_rss_mb": peak_rss_mb()})
    } else {
        let queries = matrices(data, "queries", "query_offsets");
        let start = Instant::now();
        let opened = MmapIndex::load(index).expect("index");
        let open_s = start.elapsed().as_secs_f64();
        opened.search(&queries[0], &parameters(&Map::new()), None).expect("search");
        let first_answer_s = start.elapsed().as_secs_f64();
        let mut result = timed(&opened, &queries, &Map::new());
        let peak = peak_rss_mb();
        let ladder: Vec<Map<String, Value>> = serde_json::from_str(&env::var("EFFORTS").unwrap_or("[]".into())).expect("EFFORTS");
        let (start, mut efforts) = (Instant::now(), Vec::new());
        for effort in &ladder {
            if start.elapsed().as_secs_f64() < LADDER_S {
                efforts.push(timed(&opened, &queries, effort));
            }
        }
        for (name, value) in [("open_s", open_s), ("first_answer_s", first_answer_s), ("peak_rss_mb", peak)] {
            result[name] = json!(value);
        }
        result["efforts"] = json!(efforts);
        result
    };
    fs::write(out, result.to_string()).unwrap();
}
