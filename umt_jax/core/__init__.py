"""The translator without Python: C++17, of which the native engine and all else is compiled."""
