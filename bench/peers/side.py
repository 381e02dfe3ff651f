"""What the sides of the bench have in common: the task, the clock and what is told of it. Standard library and numpy, so that it runs in every environment."""
import json
import os
import resource
import sys
import time
from pathlib import Path


class Side:
    """One library in a process of its own: `imported`, then `first` and `again`, then `done`."""

    def __init__(self, folder):
        self.folder, self.started = Path(folder), float(os.environ.get('BENCH_STARTED', time.time()))
        self.task = json.loads((self.folder / 'task.json').read_text())
        self.said, self.held = {'peak_mb': {}}, None

    def prices(self):
        """The arrays, read from disk once: each side makes its own tables or bars of them in every run."""
        if self.held is None:
            import numpy as np
            self.held = [np.load(self.folder / f'{k}.npy') for k in ('open', 'high', 'low', 'close')]
        return self.held

    def imported(self, version):
        self.said |= {'version': version, 'import_s': round(time.time() - self.started, 3)}
        self.said['peak_mb']['imported'] = self.peak()

    def peak(self): return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)

    def timed(self, work):
        t = time.perf_counter()
        out = work()
        return out, round(time.perf_counter() - t, 4)

    def first(self, work):
        out, self.said['first_s'] = self.timed(work)
        self.said['new_process_s'] = round(time.time() - self.started, 3)
        self.said['peak_mb']['first'] = self.peak()
        return out

    def again(self, name, work, times):
        out, took, cpu = None, [], []
        for _ in range(times):
            t = time.process_time()
            out, s = self.timed(work)
            took.append(s)
            cpu.append(round(time.process_time() - t, 4))
        self.said |= {name: min(took), f'{name[:-2]}_cpu_s': min(cpu)}
        return out

    def done(self, fills, final, **more):
        import numpy as np
        np.save(self.folder / f'fills_{self.said["version"].split()[0]}.npy', np.array(fills, float).reshape(-1, 3))
        self.said['peak_mb']['end'] = self.peak()
        sys.stdout.write('\n' + json.dumps(self.said | {'fills': len(fills), 'final': final} | more) + '\n')
