"""Tables as Arrow streams of one batch, by the Arrow C data and C stream interfaces (arrow.apache.org/docs/format).

Buffers are NumPy arrays; each exported structure holds a reference to the arrays it points into and drops it in its
release callback, which consumers call from any thread: it takes the GIL. No dependency on an Arrow library.
"""

import numpy as np

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strcpy

cdef extern from *:
    """
    #include <stdint.h>
    struct ArrowSchema {
      const char *format; const char *name; const char *metadata; int64_t flags; int64_t n_children;
      struct ArrowSchema **children; struct ArrowSchema *dictionary; void (*release)(struct ArrowSchema *);
      void *private_data;
    };
    struct ArrowArray {
      int64_t length; int64_t null_count; int64_t offset; int64_t n_buffers; int64_t n_children;
      const void **buffers; struct ArrowArray **children; struct ArrowArray *dictionary;
      void (*release)(struct ArrowArray *); void *private_data;
    };
    struct ArrowArrayStream {
      int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *);
      int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *);
      const char *(*get_last_error)(struct ArrowArrayStream *);
      void (*release)(struct ArrowArrayStream *); void *private_data;
    };
    """
    struct ArrowSchema:
        const char *format
        const char *name
        const char *metadata
        int64_t flags
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept
        void *private_data

    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept
        void *private_data

    struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept
        const char *(*get_last_error)(ArrowArrayStream *) noexcept
        void (*release)(ArrowArrayStream *) noexcept
        void *private_data


_FORMATS = {
    "f8": "g", "f4": "f", "i8": "l", "i4": "i", "i2": "s", "i1": "c", "u8": "L", "u4": "I", "u2": "S", "u1": "C",
    "b1": "b",
}


cdef class _Column:
    """One column, ready to be pointed into: its format, the array that owns its values, the child of fixed arrays."""
    cdef bytes name
    cdef bytes format
    cdef object values
    cdef _Column child
    cdef int64_t rows

    def __init__(self, str name, array):
        self.name = name.encode()
        self.rows = len(array)
        if array.ndim == 2:
            self.format = b"+w:%d" % array.shape[1]
            self.child = _Column("item", array.reshape(-1))
        else:
            self.format = _FORMATS[array.dtype.str[1:]].encode()
            self.values = np.packbits(array, bitorder="little") if array.dtype.kind == "b" else array


cdef class _Batch:
    """All columns of a table; what every exported structure keeps alive."""
    cdef list columns
    cdef int64_t rows
    cdef bint taken

    def __init__(self, list names, list arrays, int64_t rows):
        self.columns = [_Column(name, array) for name, array in zip(names, arrays)]
        self.rows = rows


cdef void release_schema(ArrowSchema *schema) noexcept with gil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i] != NULL:
            if schema.children[i].release != NULL:
                schema.children[i].release(schema.children[i])
            free(schema.children[i])
    free(schema.children)
    free(<void *>schema.format)
    free(<void *>schema.name)
    schema.release = NULL


cdef char *text(bytes value) noexcept:
    cdef char *copy = <char *>calloc(len(value) + 1, 1)
    if copy != NULL:
        strcpy(copy, value)
    return copy


cdef int fill_schema(ArrowSchema *schema, bytes format, bytes name, list children) except -1:
    cdef int64_t i
    cdef _Column column
    memset(schema, 0, sizeof(ArrowSchema))
    schema.release = release_schema
    schema.format = text(format)
    schema.name = text(name)
    if children:
        schema.children = <ArrowSchema **>calloc(len(children), sizeof(ArrowSchema *))
    if schema.format == NULL or schema.name == NULL or (children and schema.children == NULL):
        raise MemoryError
    for i, column in enumerate(children):
        schema.children[i] = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
        if schema.children[i] == NULL:
            raise MemoryError
        schema.n_children = i + 1
        fill_schema(schema.children[i], column.format, column.name, [column.child] if column.child is not None else [])
    return 0


cdef int batch_schema(_Batch batch, ArrowSchema *schema) except -1:
    try:
        fill_schema(schema, b"+s", b"", batch.columns)
    except MemoryError:
        release_schema(schema)
        raise
    return 0


cdef void release_array(ArrowArray *array) noexcept with gil:
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i] != NULL:
            if array.children[i].release != NULL:
                array.children[i].release(array.children[i])
            free(array.children[i])
    free(array.children)
    free(array.buffers)
    if array.private_data != NULL:
        Py_DECREF(<object>array.private_data)
    array.release = NULL


cdef int fill_array(ArrowArray *array, int64_t rows, owner, values, list children) except -1:
    """values: None for a structure or a fixed array, which have no buffer of their own but the (absent) validity."""
    cdef int64_t i
    cdef _Column column
    memset(array, 0, sizeof(ArrowArray))
    array.release = release_array
    array.length = rows
    array.n_buffers = 1 if values is None else 2
    array.buffers = <const void **>calloc(2, sizeof(void *))
    if children:
        array.children = <ArrowArray **>calloc(len(children), sizeof(ArrowArray *))
    if array.buffers == NULL or (children and array.children == NULL):
        raise MemoryError
    if values is not None:
        array.buffers[1] = <const void *><uintptr_t>values.ctypes.data
    array.private_data = <void *>owner
    Py_INCREF(owner)
    for i, column in enumerate(children):
        array.children[i] = <ArrowArray *>calloc(1, sizeof(ArrowArray))
        if array.children[i] == NULL:
            raise MemoryError
        array.n_children = i + 1
        fill_array(array.children[i], column.rows, column, column.values,
                   [column.child] if column.child is not None else [])
    return 0


cdef int stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept with gil:
    try:
        batch_schema(<_Batch>stream.private_data, out)
    except MemoryError:
        return ENOMEM
    return 0


cdef int stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept with gil:
    cdef _Batch batch = <_Batch>stream.private_data
    memset(out, 0, sizeof(ArrowArray))
    if batch.taken:
        return 0  # a released array says: the end
    try:
        fill_array(out, batch.rows, batch, None, batch.columns)
    except MemoryError:
        release_array(out)
        return ENOMEM
    batch.taken = True
    return 0


cdef const char *stream_error(ArrowArrayStream *stream) noexcept with gil:
    return NULL


cdef void release_stream(ArrowArrayStream *stream) noexcept with gil:
    if stream.private_data != NULL:
        Py_DECREF(<object>stream.private_data)
    stream.private_data = NULL
    stream.release = NULL


cdef void drop_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:  # a consumer that took the stream over has set it to null
        stream.release(stream)
    free(stream)


cdef void drop_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


def stream_capsule(list names, list arrays, int64_t rows):
    """A PyCapsule "arrow_array_stream" of one batch. arrays: contiguous, of `rows` rows, one or two dimensions."""
    cdef _Batch batch = _Batch(names, arrays, rows)
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>calloc(1, sizeof(ArrowArrayStream))
    if stream == NULL:
        raise MemoryError
    stream.get_schema = stream_schema
    stream.get_next = stream_next
    stream.get_last_error = stream_error
    stream.release = release_stream
    stream.private_data = <void *>batch
    Py_INCREF(batch)
    return PyCapsule_New(stream, "arrow_array_stream", drop_stream)


def schema_capsule(list names, list arrays, int64_t rows):
    """A PyCapsule "arrow_schema" of the same table."""
    cdef ArrowSchema *schema = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError
    try:
        batch_schema(_Batch(names, arrays, rows), schema)
    except MemoryError:
        free(schema)
        raise
    return PyCapsule_New(schema, "arrow_schema", drop_schema)
