class Keywords:
    def sp(self, indices, values, g, *, density, **rest):
        assert density <= 1
        assert "block_size" in rest
        return (values * g[indices]).sum(1)

    def lcg(self, indices, values, c, d, *layout):
        import numpy as np

        assert len(layout) == 2
        omega = np.zeros(d, values.dtype)
        for row, v, s in zip(indices, values, c, strict=True):
            omega[row] += s * v
        return {"omega": omega}


class Static:
    @staticmethod
    def top_k(a, k):
        from types import SimpleNamespace

        from good import top_k

        indices, values = top_k(a, k)
        return SimpleNamespace(values=values, indices=indices.tolist())


table = {"sp": lambda indices, values, g: (values * g[indices]).sum(1)}
