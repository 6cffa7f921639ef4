def test_x(trained_dir):
    import os

    os.system(f"cut -c1-60 {trained_dir}/metrics.jsonl")
