"""From a teacher's words to verified triples: problem, trace, answer."""

from tinydata.teachers.asking import (
    Asking,
    Checker,
    CodeRunner,
    Generator,
    Problem,
    TeacherError,
)
from tinydata.teachers.importer import Rules, Summary, TeacherImport
from tinydata.teachers.triples import Triple, read_triples, write_triples

__all__ = [
    "Asking",
    "Checker",
    "CodeRunner",
    "Generator",
    "Problem",
    "Rules",
    "Summary",
    "TeacherError",
    "TeacherImport",
    "Triple",
    "read_triples",
    "write_triples",
]
