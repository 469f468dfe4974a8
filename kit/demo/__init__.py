"""A page in the browser that shows what models find in images and videos: python -m kit.demo MODEL [MODEL ...]."""
