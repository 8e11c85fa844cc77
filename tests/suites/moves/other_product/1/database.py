import os

URL = os.environ.get("SHOP_URL", "postgresql+psycopg://shop@shop-db:5432/shop")
