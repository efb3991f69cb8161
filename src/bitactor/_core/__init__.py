"""The sealed core: Cython declarations and thin classes over the C11 library. Private."""
