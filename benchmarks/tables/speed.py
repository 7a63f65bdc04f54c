"""Tables of time, bytes and memory."""

import math
from typing import Any

from tables.markdown import percent, source, table

_READERS = ("openslide-python", "tiffslide", "cucim-cu12", "rasterio", "tifffile", "zarr", "dask")


def memory(result: dict[str, Any]) -> str:
    """Peak memory by size of the scene."""
    rows = [
        [r["scene"], f"{r['bytes'] / 1e6:,.0f} MB", f"{r['rss']:.0f} MB", str(r["glimpses"]), str(r["tiles"])]
        for r in result["rows"]
    ]
    return table(["scene", "file", "peak memory of `classify`", "glimpses", "tiles"], rows) + source(
        result, "memory.py"
    )


def viewer(result: dict[str, Any]) -> str:
    """Time and memory of the viewer's server."""
    rows = [
        [
            f"{r['width']:,} x {r['height']:,} px, {r['bytes'] / 1e6:,.0f} MB",
            f"{r['first_view_s']:.2f} s, {r['first_view_tiles']} tiles",
            f"{r['median_ms']:.0f} ms ({r['p95_ms']:.0f} ms)",
            f"{r['memory_mb'][1]:.0f} to {r['memory_mb'][-1]:.0f} MB",
        ]
        for r in result["rows"]
    ]
    count = result["rows"][0]["tiles"]
    head = ["slide", "first view", "a tile, median (95 %)", f"memory from tile 500 to {count:,}"]
    return table(head, rows) + source(result, "viewer.py")


def report(result: dict[str, Any]) -> str:
    """Size of a report, and the time to open it."""
    rows = [
        [
            f"{r['cases']}",
            f"{r['bytes'] / 1e6:.1f} MB, {r['bytes'] / r['cases'] / 1e3:.0f} kB a case",
            f"{r['shown_ms'] / 1e3:.2f} s",
            f"{r['screenshot_s']:.2f} s ({r['empty_screenshot_s']:.2f} s)",
        ]
        for r in result["rows"]
    ]
    head = ["cases", "file", "until the first case is shown", "browser started, page drawn (an empty one)"]
    return table(head, rows) + source(result, "report.py")


def reading(result: dict[str, Any]) -> str:
    """CPU ms per crop, pattern by pattern, beside the other readers."""
    shown = result["rows"]
    ways = {
        "hiresattn": "ours",
        "hiresattn, ready for a network": "fused",
        "decoding alone (the floor)": "floor",
        "OpenSlide `read_region`": "loop",
    }
    rows = [[name, *(f"{row[key]['cpu_ms']:.2f}" for row in shown)] for name, key in ways.items()]
    absent = []
    for number, other in enumerate(shown[0]["others"]):
        if other.get("missing"):
            absent.append(other["name"])
        else:
            rows.append([other["name"], *(f"{row['others'][number]['cpu_ms']:.2f}" for row in shown)])
    head = [f"CPU ms per crop, {shown[0]['side']:,} px JPEG slide", *(row["pattern"] for row in shown)]
    floor = ", ".join(f"{row['pattern']} {row['ratio_to_floor']:.2f}" for row in shown)
    fused = ", ".join(f"{row['fused']['ratio_to_floor']:.2f}" for row in shown)
    words = (
        f"\n\n{shown[0]['crops']} crops of 224 px, one thread, pixels compared. Times the floor: {floor}; ready for a "
        f"network {fused}. {_peers(result, *_READERS)}"
    )
    words += _by_call(shown)
    if absent:
        words += f" Not installed here: {', '.join(absent)}."
    return table(head, rows) + words + source(result, "reading.py")


def _by_call(rows: list[dict[str, Any]]) -> str:
    """A sentence on calls for fewer crops, where they were measured."""
    if "calls" not in rows[0]:
        return ""
    whole, *fewer = rows[0]["calls"]
    parts = []
    for count in fewer:
        each = ", ".join(f"{row['pattern']} {row['calls'][count] / row['calls'][whole]:.2f}" for row in rows)
        parts.append(f"of {count}: {each}")
    words = f"An image that stays open, in calls for fewer crops, times the cost of calls for {whole}"
    return f" {words}: {'; '.join(parts)}."


def _peers(result: dict[str, Any], *packages: str) -> str:
    """A sentence with the versions of others."""
    versions = result["versions"]
    return ", ".join(f"{package} {versions[package]}" for package in packages if package in versions) + "."


def layouts(result: dict[str, Any]) -> str:
    """By layout: times the usual loop, and CPU ms per crop, of the patterns."""
    rows: dict[str, list[str]] = {}
    for row in result["rows"]:
        floor = f"{row['floor']['cpu_ms']:.2f}" if row["floor"] else "-"
        rows.setdefault(row["layout"], [row["layout"], row["loop"]["name"]]).extend(
            [
                f"{row['speedup_over_loop']:.2f}",
                f"{row['ours']['cpu_ms']:.2f} ({floor}), {row['fused']['cpu_ms']:.2f}",
            ]
        )
    head = ["layout", "the usual loop"]
    for pattern in dict.fromkeys(row["pattern"] for row in result["rows"]):
        head += [f"{pattern}: times faster", "CPU ms a crop (floor), ready for a network"]
    crops, side = result["rows"][0]["crops"], result["side"]
    words = (
        f"\n\n{crops} crops of 224 px of level 0, one thread, pixels compared; each way opens the file anew. The first "
        f"{result['written']} layouts are written, of {side:,} px; the others are real files. "
        f"{_peers(result, *_READERS, 'tensorstore')}"
    )
    others = [
        f"{row['layout']}, {row['pattern']} {row['tensorstore']['tensorstore'] / row['tensorstore']['ours']:.2f}"
        for row in result["rows"]
        if row.get("tensorstore")
    ]
    if others:
        words += f" TensorStore with a cache, the same arrays, times our CPU: {'; '.join(others)}."
    return table(head, list(rows.values())) + words + source(result, "layouts.py")


def slide_profile(result: dict[str, Any]) -> str:
    """What a classification of a large slide spends its time on."""
    names = {
        "model": "network",
        "read": "reading crops",
        "open": "opening the file",
        "rest": "the rest: search, geometry, record",
        "total": "in all",
    }
    whole = result["rows"]["total"]["cpu"]
    rows = [
        [name, f"{1e3 * seconds['cpu']:.0f}", percent(seconds["cpu"] / whole)]
        for key, name in names.items()
        for seconds in [result["rows"][key]]
    ]
    numba = result["numba"]
    words = (
        f"\n\n{result['budget']} looks at a JPEG slide of {result['side']:,} x {result['side']:,} px "
        f"({result['bytes'] / 1e6:.0f} MB), opened anew; EfficientNet-B0 (random weights), crops of 224 px, one "
        f"thread. Numba costs a second process {numba['import']:.2f} s for its import and {numba['kernels']:.2f} s for "
        "the compiled kernels."
    )
    return table(["`classify`", "CPU ms", "share"], rows) + words + source(result, "slide_profile.py")


def engines(result: dict[str, Any]) -> str:
    """CPU time of a classification with torch and with ONNX Runtime."""
    rows = [
        [r["encoder"], f"{r['torch_ms']:,.0f}", f"{r['onnx_ms']:,.0f}", f"{r['times_less']:.1f}"]
        for r in result["rows"]
    ]
    words = (
        f"\n\n{result['budget']} looks at {result['slide']}, opened anew, one thread; random weights. Both engines "
        "looked at the same regions. "
        f"ONNX Runtime {result['versions']['onnxruntime']}, torch {result['versions']['torch']}."
    )
    head = ["`classify`, CPU ms", "torch", "ONNX Runtime", "times less"]
    return table(head, rows) + words + _parts(result) + source(result, "engines.py")


def _parts(result: dict[str, Any]) -> str:
    """What a look costs by part, where that was measured."""
    if "parts" not in result:
        return ""
    parts = ("network", "decoding", "opening", "crops", "search", "rest")
    rows = [[r["encoder"], r["image"], *(f"{r[part]:.2f}" for part in parts)] for r in result["parts"]]
    head = ["CPU ms a look, ONNX Runtime", "image in a", *parts[:-1], "crops and search"]
    words = (
        f"\n\n{result['budget']} looks at {result['side']:,} x {result['side']:,} px, as a tiled JPEG file that is "
        "opened anew and as arrays in memory. *Crops*: which tiles are read, and crops made of them; *search*: all "
        "else, the record included."
    )
    return "\n\n" + table(head, rows) + words


def precision(result: dict[str, Any]) -> str:
    """Time of a crop with 8 bits and with bfloat16, and what 8 bits make of the demo's answers."""
    ways = {
        "onnx": "ONNX Runtime",
        "onnx-int8": "ONNX Runtime, 8 bits",
        "torch": "PyTorch",
        "bfloat16": "PyTorch, bfloat16",
    }
    rows = [
        [f"{row['encoder']}, {row['size']} px", name, *(f"{row[f'{way}_{count}']:.2f}" for count in (1, 16))]
        for row in result["rows"]
        for way, name in ways.items()
    ]
    demo = result["demo"]
    words = (
        "\n\nThe network alone, one thread, random weights, in turns. Answers: the demo's model with 8 bits gives "
        f"{demo['same']} of {demo['scenes']} scenes the same class as without, {demo['right']} rightly; scores are up "
        f"to {demo['apart']:.2f} apart."
    )
    head = ["network", "by", "CPU ms a crop, one at a time", "16 at a time"]
    return table(head, rows) + words + source(result, "precision.py")


def end_to_end(result: dict[str, Any]) -> str:
    """A search beside reading and encoding every place."""
    by = {(row["way"], row["engine"]): row for row in result["rows"]}
    engines, one = {"onnx": "ONNX Runtime", "torch": "PyTorch"}, by["search", "onnx"]

    def line(name: str, row: dict[str, Any]) -> list[str]:
        cpu = row["cpu_seconds"]
        times = f"{cpu / one['cpu_seconds']:.0f}; {row['bytes'] / one['bytes']:.0f}"
        return [
            name,
            f"{row['crops']:,}",
            f"{cpu:.1f} s",
            f"{row['bytes'] / 1e6:.1f} MB",
            "1" if row is one else times,
            f"{3600 / cpu:,.0f}",
            f"{row['crops'] / cpu:.0f}",
        ]

    rows = [line(f"`classify`, {name}", by["search", key]) for key, name in engines.items()]
    rows += [
        line(
            f"every place, OpenSlide, {name}, {by['every place', key]['batch']} at a time",
            by["every place", key],
        )
        for key, name in engines.items()
    ]
    head = [
        "one slide",
        "crops",
        "CPU",
        "bytes read",
        "times the CPU; the bytes",
        "slides a CPU-hour",
        "crops a CPU-second",
    ]
    words = (
        f"\n\nA JPEG slide of {result['side']:,} x {result['side']:,} px ({result['file_bytes'] / 1e6:.0f} MB), "
        "EfficientNet-B0 of random weights, crops of 224 px, one thread, the model loaded; *every place* was measured "
        "over the whole slide, with the number of crops at a time that is fastest here. OpenSlide "
        f"{by['every place', 'torch']['openslide']}, ONNX Runtime {result['versions']['onnxruntime']}, PyTorch "
        f"{result['versions']['torch']}."
    )
    return table(head, rows) + words + source(result, "end_to_end.py")


def cold(result: dict[str, Any]) -> str:
    """CPU and wall time of processes from their start."""
    rows = [
        [f"`{row['command']}`", f"{row['cpu_seconds']:.2f} s", f"{row['seconds']:.2f} s"]
        for row in result["cold"]
    ]
    words = "\n\nWhole processes at an image of 700 x 900 px, the demo's model, up to 64 looks; the median of some."
    return table(["command", "CPU", "from start to end"], rows) + words + source(result, "end_to_end.py")


def remote(result: dict[str, Any]) -> str:
    """Requests and bytes of a look over the network."""
    rows = [
        [
            f"{row['side']:,}",
            f"{row['bytes'] / 1e6:.0f} MB",
            f"{row['glance']['requests']}, {row['glance']['bytes'] / 1e6:.2f} MB",
            *(
                f"{row[policy]['requests']}, {row[policy]['bytes'] / 1e6:.2f} MB ({100 * row[policy]['share']:.1f} %)"
                for policy in ("best-first", "random")
            ),
        ]
        for row in result["rows"]
    ]
    looks = f"search, {result['budget']} looks"
    head = ["side, px", "file", "open and root regions", looks, "as many random looks"]
    doublings = math.log2(result["rows"][-1]["side"] / result["rows"][0]["side"])
    more = [
        result["rows"][-1][policy]["bytes"] - result["rows"][0][policy]["bytes"]
        for policy in ("best-first", "random")
    ]
    words = (
        f"\n\nRequests and bytes; the server answers after {result['latency_ms']} ms. When the side doubles, the file "
        f"grows fourfold, a search reads {more[0] / doublings / 1e6:.2f} MB more and random looks "
        f"{more[1] / doublings / 1e6:.2f} MB more."
    )
    return table(head, rows) + words + source(result, "remote.py")


def tnet_speed(result: dict[str, Any]) -> str:
    """Time per image of TNet and of its encoder on the whole image, in both engines."""
    ways = [(engine, kind) for engine in ("torch", "onnx") for kind in ("alone", "reading")]

    def cell(row: dict[str, Any], engine: str, kind: str) -> str:
        middle, low, high = row[f"{engine}_{kind}_ratio"]
        ratio = f"; {middle:.1f} ({low:.1f} to {high:.1f})" if row["locations"] else ""
        return f"{row[f'{engine}_{kind}_ms']:.0f}{ratio}"

    rows = [
        [
            r["name"],
            f"{r['macs'] / 1e9:.2f} G" + f"; {r['macs_ratio']:.1f}" * bool(r["locations"]),
            *(cell(r, *way) for way in ways),
        ]
        for r in result["rows"]
    ]
    names = {"torch": "PyTorch", "onnx": "ONNX Runtime"}
    head = ["one image", "MACs; times fewer"]
    head += [
        f"CPU ms, {names[engine]}{', with reading' * (kind == 'reading')}; times faster"
        for engine, kind in ways
    ]
    words = (
        f"\n\nOne thread, {result['images']} images one by one, {result['repeats']} turns; ratios: median (10 to "
        "90 %). Random weights, synthetic JPEG COGs, read lazily; TNet is compared at the same size of image."
    )
    return table(head, rows) + words + source(result, "tnet_speed.py")


def features(result: dict[str, Any]) -> str:
    """Training a head on kept features: the first time, and again."""
    first, again = result["extraction"]
    head, cohort = result["head"], result["cohort_head"]
    spent = [
        ("first: features extracted, then a head trained", first["seconds"] + head["seconds"],
         first["cpu_seconds"] + head["cpu_seconds"]),
        ("again: features looked up, then a head trained", again["seconds"] + head["seconds"],
         again["cpu_seconds"] + head["cpu_seconds"]),
        ("again: a head alone", head["seconds"], head["cpu_seconds"]),
    ]  # fmt: skip
    rows = [[words, f"{wall:.0f}", f"{cpu:.0f}", f"{spent[0][2] / cpu:.0f}"] for words, wall, cpu in spent]
    images, regions, width = result["cohort"]
    rows.append(
        [f"a head on {images} images of {regions:,} regions, {width:,} numbers each", f"{cohort['seconds']:.0f}",
         f"{cohort['cpu_seconds']:.0f}", ""]
    )  # fmt: skip
    words = (
        f"\n\n{result['scenes']} scenes of 2,016 px, {first['regions']:,} regions of 224 px, ResNet-18 with random "
        f"weights; {result['epochs']} epochs. The last row: random features in which 5 % of the regions show the class."
    )
    return table(["training", "s", "CPU s", "times less CPU"], rows) + words + source(result, "features.py")


def conversion(result: dict[str, Any]) -> str:
    """Ours beside dask's coarsening, level by level."""
    names = {"ours": "`hiresattn convert`", "dask": "`dask.array.coarsen`, level by level"}
    rows = [
        [names[key], f"{r['cpu_seconds']:.1f} s", f"{r['rss']:.0f} MB", f"{max(r['errors']):.2f}"]
        for key, r in result["rows"].items()
    ]
    side = f"{result['side']:,}"
    head = [f"{side} x {side} px to OME-Zarr", "CPU", "peak memory", "largest error, grey levels"]
    words = (
        f"\n\n{result['ratio']:.1f} times less CPU, reading back and comparing "
        f"{result['rows']['ours']['windows']} windows included. Same tiled JPEG, same reader, same chunks, shards and "
        "codec. Error: of a level's px against the exact mean of the level-0 px that it shows."
    )
    first = table(head, rows)
    names = {
        "ours": "`hiresattn convert`, a COG",
        "libvips": f"libvips {result['cog']['libvips']['version']}",
    }
    jpeg = [
        [names[key], f"{r['cpu_seconds']:.1f} s", f"{r['rss']:.0f} MB", f"{r['bytes'] / 1e6:.0f} MB",
         ", ".join(f"{error:.2f}" for error in r["errors"])]
        for key, r in result["cog"].items()
    ]  # fmt: skip
    ours, theirs = (result["cog"][key] for key in ("ours", "libvips"))
    side = f"{result['cog_side']:,}"
    head = [f"{side} x {side} px to JPEG tiles", "CPU", "peak memory", "file", "error of levels 0, 1 and 3"]
    words += (
        f"\n\n{table(head, jpeg)}\n\n{ours['cpu_seconds'] / theirs['cpu_seconds']:.2f} times libvips' CPU, of which "
        f"{ours['verifying'] / ours['cpu_seconds']:.0%} is reading back and comparing {ours['windows']} windows. "
        "Quality 85, halved colour, tiles of 256 px, one thread; of three turns the one of least CPU. Error: root "
        "mean square, grey levels."
    )
    return first + words + source(result, "conversion.py")


def search(result: dict[str, Any]) -> str:
    """What the search costs outside network and reading, and what images side by side save."""
    rows = result["outside"]
    counts = sorted({row["glimpses"] for row in rows})
    by = {(row["case"], row["glimpses"]): row["ms"] for row in rows}
    body = [
        [case, *(f"{by[case, count]:.2f}" for count in counts)]
        for case in dict.fromkeys(row["case"] for row in rows)
    ]
    head = ["CPU ms a glimpse, outside network and reading", *(f"{count:,} glimpses" for count in counts)]
    return table(head, body) + _side_by_side(result.get("images", [])) + source(result, "search.py")


def _side_by_side(rows: list[dict[str, Any]]) -> str:
    """Images searched at once, by encoder; empty where that wasn't measured."""
    if not rows:
        return ""
    body = [
        [f"`{row['encoder']}`, {row['glimpses']} glimpses",
         f"{row['auto']} (chosen)" if row["batch_images"] == "auto" else str(row["batch_images"]),
         f"{row['ms']:.2f}", f"{row['times_less']:.2f}"]
        for row in rows
    ]  # fmt: skip
    head = ["16 images, opening and reading included", "side by side", "CPU ms a glimpse", "times less"]
    return "\n\n" + table(head, body)
