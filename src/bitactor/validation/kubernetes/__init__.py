"""`bitactor chaos --kubernetes`: pods of a release struck from outside, while a pod beside them sends and judges."""
