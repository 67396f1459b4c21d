"""A network as a file that other programs run (ONNX, torch.export), written only if it gives the same outputs."""

from amsc.export.onnx import export_onnx, onnx_calls
from amsc.export.parity import Exported
from amsc.export.program import export_pt2
from amsc.export.standalone import export_standalone

__all__ = ["Exported", "export_onnx", "export_pt2", "export_standalone", "onnx_calls"]
