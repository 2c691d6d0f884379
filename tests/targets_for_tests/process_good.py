"""A process of the standard library alone that speaks the protocol; flags make it misbehave."""

import base64
import json
import os
import struct
import sys
import time

FORMATS = {"float64": "d", "float32": "f", "int32": "i"}
FLAGS = set(sys.argv[1:])


def numbers(a):
    n = 1
    for side in a["shape"]:
        n *= side
    if "npy" in a:
        with open(a["npy"], "rb") as file:
            data = file.read()
        data = data[10 + struct.unpack("<H", data[8:10])[0] :]
    else:
        data = base64.b64decode(a["base64"])
    return struct.unpack(f"<{n}{FORMATS[a['dtype']]}", data)


def sp(indices, values, g, block_size, density):
    m, k = indices["shape"]
    i, v, g = numbers(indices), numbers(values), numbers(g)
    return [sum(v[r * k + j] * g[i[r * k + j]] for j in range(k)) for r in range(m)]


def answer(message):
    number, a = message["id"], message["arguments"]
    if message["operation"] == "top_k":
        return {"type": "error", "id": number, "kind": "declined", "reason": "not for me"}
    if "hang" in FLAGS and number == 10:
        time.sleep(60)
    if "die" in FLAGS and number == 10:
        os.abort()
    if "babble" in FLAGS and number == 10:
        return "hello"
    if "deaf" in FLAGS:
        number += 1
    if "raise" in FLAGS:
        return {"type": "error", "id": number, "kind": "ValueError", "reason": "no idea"}
    if "escape" in FLAGS:
        return {"type": "error", "id": number, "kind": "red\x1b[31m", "reason": "clear \x1b[2J\nnext \x9b \u202e"}
    omega = sp(**a)
    if "wrong" in FLAGS:
        omega[-1] += 1.0
    if "npy" in FLAGS:
        head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({len(omega)},), }}\n"
        data = b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + struct.pack(f"<{len(omega)}d", *omega)
        with open(os.path.join(FOLDER, "omega.npy"), "wb") as file:
            file.write(data)
        path = "../omega.npy" if "climb" in FLAGS else "omega.npy"
        return {"type": "result", "id": number,
                "results": {"omega": {"dtype": "float64", "shape": [len(omega)], "npy": path}}}
    data = base64.b64encode(struct.pack(f"<{len(omega)}d", *omega)).decode()
    if "short" in FLAGS:
        data = data[:8]
    return {"type": "result", "id": number,
            "results": {"omega": {"dtype": "float64", "shape": [len(omega)], "base64": data}}}


for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "start":
        FOLDER = message["folder"]
        reply = {"type": "ready", "protocol": 9 if "future" in FLAGS else 1, "operations": ["sp", "top_k", "tea"],
                 "capabilities": ["npy"] if "npy" in FLAGS else ["base64", "telepathy"]}
        if "declares" in FLAGS:
            reply["declared"] = {"DTYPES": ["float64"], "SOLVER": "eigh"}
    elif message["type"] == "stop":
        break
    else:
        print("working on", message["id"], file=sys.stderr, flush=True)
        reply = answer(message)
    print(json.dumps(reply), flush=True)
